"""Tests an installed wheel away from the sources; `make wheel-check` and `make gpu-check` run it.

`smoke.py cuda` runs it on a card.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import mmiln

assert "site-packages" in mmiln.__file__, mmiln.__file__

device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
data = mmiln.data.synthetic(n_train=32, n_valid=8, n_test=8)
model = mmiln.Model("mosi", num_layers=1, batch_size=8, seed=1, device=device)
history = model.fit(data.train, data.valid, epochs=2, progress=False)
assert history.epochs == 2 and np.isfinite(history["train_total"]).all()

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    again = mmiln.Model.from_pretrained(folder, device=device)
    assert (again.predict(data.test).score == model.predict(data.test).score).all()

if device == "cpu":  # a machine with a card may lack what the command needs
    command = [sys.executable, "-m", "mmiln", "experiment", "run", "table9"]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert "controls, figure4, table2, table3" in said, said  # the paper's experiments are in the wheel

cores = sorted(Path(mmiln.__file__).parent.rglob("_core*.so"))
assert cores
for core in cores:
    header = subprocess.run(["readelf", "-d", core], capture_output=True, text=True, check=True).stdout
    assert "PATH" not in header, (core, header)
    assert "cuda" not in header, (core, header)
    assert "abi3" in core.name, core
print(f"the wheel of mmiln {mmiln.__version__} works on {device}")

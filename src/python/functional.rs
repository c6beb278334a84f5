//! The operations for `mmiln.functional`: they check users' tensors and return results that join their graph.

use std::fmt::Display;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3_tch::PyTensor;
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

use super::entry;
use crate::config::Pooling;
use crate::device::{Pointer, takes};
use crate::error::{Error, Result};
use crate::loss;
use crate::numeric::Real;
use crate::ops::adam::{After, Decay, Settings, Slice, adam};
use crate::ops::attention::{Attention, Qkv};
use crate::ops::autograd::{apart, is_aligned, plain, slice, slice_mut};
use crate::ops::bigru_control::Bigru;
use crate::ops::feed_forward::FeedForwardNorm;
use crate::ops::gated_norm::{GatedNorm, Gates};
use crate::ops::linear::Activation;
use crate::ops::parallel::kernels_alone;
use crate::ops::ulgm::cuda as ulgm;
use crate::ops::ulgm::{Relabel, Space, relabel};
use crate::ops::{self, LayerNorm, Linear, Recurrent, Weight};
use crate::ragged::{Layout, Ragged};
use crate::rng::Dropout;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(linear, module)?)?;
    module.add_function(wrap_pyfunction!(conv1d, module)?)?;
    module.add_function(wrap_pyfunction!(lstm, module)?)?;
    module.add_function(wrap_pyfunction!(bigru_control, module)?)?;
    module.add_function(wrap_pyfunction!(attention, module)?)?;
    module.add_function(wrap_pyfunction!(source_gate, module)?)?;
    module.add_function(wrap_pyfunction!(gated_norm, module)?)?;
    module.add_function(wrap_pyfunction!(feed_forward_norm, module)?)?;
    module.add_function(wrap_pyfunction!(mean_pool, module)?)?;
    module.add_function(wrap_pyfunction!(cmd, module)?)?;
    module.add_function(wrap_pyfunction!(orthogonality, module)?)?;
    module.add_function(wrap_pyfunction!(task_loss, module)?)?;
    module.add_function(wrap_pyfunction!(ulgm_labels, module)?)?;
    module.add_function(wrap_pyfunction!(adam_, module)?)
}

// Checks

/// Refuses tensors that the kernels can't read together: of another kind than the first, or on another device.
fn check_kinds(tensors: &[(&str, &Tensor)]) -> Result<()> {
    let (first, kind, device) = (tensors[0].0, tensors[0].1.kind(), tensors[0].1.device());
    for (name, tensor) in tensors {
        if !matches!(tensor.device(), Device::Cpu | Device::Cuda(_)) {
            return Err(Error::Device(format!(
                "{name} is on {:?}: there are kernels for the CPU and for CUDA",
                tensor.device()
            )));
        }
        if tensor.device() != device {
            return Err(Error::Device(format!(
                "all tensors must be on one device, got {device:?} for {first} and {:?} for {name}",
                tensor.device()
            )));
        }
        if !matches!(tensor.kind(), Kind::Float | Kind::Double) {
            return Err(Error::Batch(format!(
                "{name} must have the dtype float32 or float64, got {:?}",
                tensor.kind()
            )));
        }
        if tensor.kind() != kind {
            return Err(Error::Batch(format!(
                "all tensors must have one dtype, got {kind:?} for {first} and {:?} for {name}",
                tensor.kind()
            )));
        }
    }
    Ok(())
}

/// Refuses a tensor of another shape; -1 stands for any size of at least 1.
fn check_shape(name: &str, tensor: &Tensor, expected: &[i64], meaning: &str) -> Result<()> {
    let shape = tensor.size();
    let fits = shape.len() == expected.len()
        && shape.iter().zip(expected).all(|(got, want)| got == want || (*want == -1 && *got >= 1));
    if fits {
        return Ok(());
    }
    let expected: Vec<String> =
        expected.iter().map(|n| if *n < 0 { "any".into() } else { n.to_string() }).collect();
    Err(Error::Batch(format!("{name} must have shape {meaning} = ({}), got {shape:?}", expected.join(", "))))
}

/// The layout of these lengths over `rows` rows.
fn layout(name: &str, lengths: Vec<i64>, rows: i64) -> Result<Arc<Layout>> {
    if let Some(short) = lengths.iter().find(|length| **length < 1) {
        return Err(Error::Batch(format!("{name} must all be at least 1, got {short}")));
    }
    let total = lengths.iter().try_fold(0_i64, |sum, length| sum.checked_add(*length));
    if total != Some(rows) || lengths.is_empty() {
        let total = total.map_or("more than any tensor has".into(), |total| total.to_string());
        return Err(Error::Batch(format!("{name} must sum to the {rows} packed rows, got {total}")));
    }
    Ok(Arc::new(Layout::new(lengths)))
}

fn require(ok: bool, name: &str, expected: &str, got: impl Display) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Config(format!("{name} must be {expected}, got {got}"))) }
}

fn dropout_of(p: f64, seed: u64) -> Result<Dropout> {
    require((0.0..1.0).contains(&p), "dropout", "in [0, 1)", p)?;
    Ok(Dropout::seeded(p, seed))
}

fn check_eps(eps: f64) -> Result<()> {
    require(eps.is_finite() && eps >= 0.0, "eps", "finite and at least 0", eps)
}

/// Rows and width of packed frames.
fn frames(name: &str, tensor: &Tensor) -> Result<[i64; 2]> {
    check_shape(name, tensor, &[-1, -1], "(sum T, width)")?;
    let [rows, width] = tensor.size()[..] else { unreachable!("checked") };
    Ok([rows, width])
}

/// Packed frames of a single utterance.
fn one_utterance(rows: PyTensor, count: i64) -> Ragged {
    Ragged { frames: rows.0, layout: Arc::new(Layout::new(vec![count])) }
}

fn affine(weight: PyTensor, bias: PyTensor) -> Linear {
    Linear { weight: Weight::of(weight.0), bias: Weight::of(bias.0) }
}

/// Checks `(out, in)` and `(out,)`; returns out.
fn check_linear(names: [&str; 2], weights: &Linear, input: i64) -> Result<i64> {
    check_shape(names[0], &weights.weight.value, &[-1, input], "(out, in)")?;
    let output = weights.weight.value.size()[0];
    check_shape(names[1], &weights.bias.value, &[output], "(out,)")?;
    Ok(output)
}

fn recurrent(weights: &mut impl Iterator<Item = PyTensor>) -> Recurrent {
    let mut next = || Weight::of(weights.next().expect("counted before").0);
    Recurrent { weight_ih: next(), weight_hh: next(), bias_ih: next(), bias_hh: next() }
}

/// Checks one direction with `gates` gates over inputs of width `input`; returns its hidden size.
fn check_recurrent(weights: &Recurrent, gates: i64, input: i64) -> Result<i64> {
    check_shape("weights: weight_hh", &weights.weight_hh.value, &[-1, -1], "(gates * hidden, hidden)")?;
    let hidden = weights.weight_hh.value.size()[1];
    let rows = gates * hidden;
    check_shape("weights: weight_hh", &weights.weight_hh.value, &[rows, hidden], "(gates * hidden, hidden)")?;
    check_shape("weights: weight_ih", &weights.weight_ih.value, &[rows, input], "(gates * hidden, in)")?;
    check_shape("weights: bias_ih", &weights.bias_ih.value, &[rows], "(gates * hidden,)")?;
    check_shape("weights: bias_hh", &weights.bias_hh.value, &[rows], "(gates * hidden,)")?;
    Ok(hidden)
}

fn check_count(weights: &[PyTensor], expected: usize) -> Result<()> {
    if weights.len() == expected {
        return Ok(());
    }
    Err(Error::Batch(format!(
        "weights must hold {expected} tensors (weight_ih, weight_hh, bias_ih, bias_hh of each direction), got {}",
        weights.len()
    )))
}

// Operations

#[pyfunction]
fn linear(
    py: Python<'_>,
    x: PyTensor,
    weight: PyTensor,
    bias: PyTensor,
    activation: &str,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        let activation = match activation {
            "none" => Activation::None,
            "relu" => Activation::Relu,
            "sigmoid" => Activation::Sigmoid,
            "gelu" => Activation::Gelu,
            "gelu_tanh" => Activation::GeluTanh,
            other => {
                return Err(Error::Config(format!(
                    "activation must be None, \"relu\", \"sigmoid\", \"gelu\" or \"gelu_tanh\", got {other:?}"
                )));
            }
        };
        check_kinds(&[("x", &x), ("weight", &weight), ("bias", &bias)])?;
        let (weights, [_, input]) = (affine(weight, bias), frames("x", &x)?);
        check_linear(["weight", "bias"], &weights, input)?;
        Ok(PyTensor(ops::linear::linear(&x, &weights, activation)))
    })
}

#[pyfunction]
fn conv1d(
    py: Python<'_>,
    x: PyTensor,
    weight: PyTensor,
    bias: PyTensor,
    lengths: Vec<i64>,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_kinds(&[("x", &x), ("weight", &weight), ("bias", &bias)])?;
        let [rows, input] = frames("x", &x)?;
        check_shape("weight", &weight, &[-1, input, -1], "(out, in, kernel)")?;
        let (output, kernel) = (weight.size()[0], weight.size()[2]);
        require(kernel % 2 == 1, "the kernel of weight", "odd", kernel)?;
        check_shape("bias", &bias, &[output], "(out,)")?;
        let x = Ragged { layout: layout("lengths", lengths, rows)?, frames: x.0 };
        Ok(PyTensor(ops::conv1d::conv1d(&x, &affine(weight, bias))))
    })
}

#[pyfunction]
fn lstm(py: Python<'_>, x: PyTensor, weights: Vec<PyTensor>, lengths: Vec<i64>) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_count(&weights, 4)?;
        let named = weights.iter().map(|w| ("weights", &w.0));
        check_kinds(&std::iter::once(("x", &x.0)).chain(named).collect::<Vec<_>>())?;
        let [rows, input] = frames("x", &x)?;
        let weights = recurrent(&mut weights.into_iter());
        check_recurrent(&weights, 4, input)?;
        let x = Ragged { layout: layout("lengths", lengths, rows)?, frames: x.0 };
        Ok(PyTensor(ops::lstm::lstm(&[(&x, &weights)]).remove(0)))
    })
}

#[pyfunction]
fn bigru_control(
    py: Python<'_>,
    x: PyTensor,
    weights: Vec<PyTensor>,
    lengths: Vec<i64>,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_count(&weights, 8)?;
        let named = weights.iter().map(|w| ("weights", &w.0));
        check_kinds(&std::iter::once(("x", &x.0)).chain(named).collect::<Vec<_>>())?;
        let [rows, input] = frames("x", &x)?;
        let weights = &mut weights.into_iter();
        let (forward, backward) = (recurrent(weights), recurrent(weights));
        let hidden = check_recurrent(&forward, 3, input)?;
        if hidden != input || check_recurrent(&backward, 3, input)? != hidden {
            return Err(Error::Batch(format!("weights of both directions must be of x's width, {input}")));
        }
        let x = Ragged { layout: layout("lengths", lengths, rows)?, frames: x.0 };
        let stream = Bigru { x: &x, forward: &forward, backward: &backward };
        Ok(PyTensor(ops::bigru_control::bigru_control(&[stream]).remove(0)))
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as in the paper
fn attention(
    py: Python<'_>,
    query: PyTensor,
    key: PyTensor,
    value: PyTensor,
    query_lengths: Vec<i64>,
    key_lengths: Vec<i64>,
    num_heads: i64,
    dropout: f64,
    seed: u64,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_kinds(&[("query", &query), ("key", &key), ("value", &value)])?;
        let ([rows, width], [source, _]) = (frames("query", &query)?, frames("key", &key)?);
        check_shape("key", &key, &[source, width], "(sum Tk, d)")?;
        check_shape("value", &value, &[source, width], "(sum Tk, d)")?;
        require(num_heads >= 1 && width % num_heads == 0, "num_heads", "a divisor of the width", num_heads)?;
        let queries = layout("query_lengths", query_lengths, rows)?;
        let keys = layout("key_lengths", key_lengths, source)?;
        if queries.batch_size() != keys.batch_size() {
            return Err(Error::Batch(format!(
                "query_lengths and key_lengths must name the same utterances, got {} and {}",
                queries.batch_size(),
                keys.batch_size()
            )));
        }
        let call = Attention {
            qkv: Qkv::Separate(&query, &key, &value),
            queries: &queries,
            keys: &keys,
            heads: num_heads,
            dropout: dropout_of(dropout, seed)?,
        };
        Ok(PyTensor(ops::attention::attention(&[call]).remove(0)))
    })
}

#[pyfunction]
fn source_gate(
    py: Python<'_>,
    a: PyTensor,
    weight: PyTensor,
    bias: PyTensor,
) -> PyResult<(PyTensor, PyTensor)> {
    entry::run_as_is(py, move || {
        check_kinds(&[("a", &a), ("weight", &weight), ("bias", &bias)])?;
        let [rows, width] = frames("a", &a)?;
        check_shape("weight", &weight, &[width, width], "(d, d)")?;
        check_shape("bias", &bias, &[width], "(d,)")?;
        let a = one_utterance(a, rows);
        let gated = ops::source_gate::source_gate(&[(&a, &affine(weight, bias))]).remove(0);
        Ok((PyTensor(gated.source), PyTensor(gated.gate)))
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as in the paper
fn gated_norm(
    py: Python<'_>,
    r: PyTensor,
    x: PyTensor,
    compound: Option<PyTensor>,
    retain: Option<PyTensor>,
    weight: PyTensor,
    bias: PyTensor,
    lengths: Vec<i64>,
    eps: f64,
    dropout: f64,
    seed: u64,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        let gates = match (&compound, &retain) {
            (Some(compound), Some(retain)) => Some(Gates { compound, retain }),
            (None, None) => None,
            _ => return Err(Error::Batch("give compound and retain both, or neither".into())),
        };
        let mut named: Vec<(&str, &Tensor)> =
            vec![("r", &r), ("x", &x), ("weight", &weight), ("bias", &bias)];
        if let Some(Gates { compound, retain }) = gates {
            named.extend([("compound", compound), ("retain", retain)]);
        }
        check_kinds(&named)?;
        check_eps(eps)?;
        let [rows, width] = frames("r", &r)?;
        check_shape("x", &x, &[rows, width], "(sum T, d)")?;
        let layout = layout("lengths", lengths, rows)?;
        if let Some(Gates { compound, retain }) = gates {
            let expected = [layout.batch_size() as i64, width];
            check_shape("compound", compound, &expected, "(B, d)")?;
            check_shape("retain", retain, &expected, "(B, d)")?;
        }
        check_shape("weight", &weight, &[width], "(d,)")?;
        check_shape("bias", &bias, &[width], "(d,)")?;
        let norm = LayerNorm { weight: Weight::of(weight.0), bias: Weight::of(bias.0), eps };
        let dropout = dropout_of(dropout, seed)?;
        let x = Ragged { frames: x.0, layout };
        let call = GatedNorm { r: &r, x: &x, gates, norm: &norm, dropout };
        Ok(PyTensor(ops::gated_norm::gated_norm(&[call]).remove(0)))
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as in the paper
fn feed_forward_norm(
    py: Python<'_>,
    y: PyTensor,
    weight1: PyTensor,
    bias1: PyTensor,
    weight2: PyTensor,
    bias2: PyTensor,
    norm_weight: PyTensor,
    norm_bias: PyTensor,
    eps: f64,
    dropout: f64,
    seed: u64,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_kinds(&[
            ("y", &y),
            ("weight1", &weight1),
            ("bias1", &bias1),
            ("weight2", &weight2),
            ("bias2", &bias2),
            ("norm_weight", &norm_weight),
            ("norm_bias", &norm_bias),
        ])?;
        check_eps(eps)?;
        let [rows, width] = frames("y", &y)?;
        let (linear1, linear2) = (affine(weight1, bias1), affine(weight2, bias2));
        let inner = check_linear(["weight1", "bias1"], &linear1, width)?;
        check_shape("weight2", &linear2.weight.value, &[width, inner], "(d, inner)")?;
        check_shape("bias2", &linear2.bias.value, &[width], "(d,)")?;
        check_shape("norm_weight", &norm_weight, &[width], "(d,)")?;
        check_shape("norm_bias", &norm_bias, &[width], "(d,)")?;
        let norm = LayerNorm { weight: Weight::of(norm_weight.0), bias: Weight::of(norm_bias.0), eps };
        let dropout = dropout_of(dropout, seed)?;
        let y = one_utterance(y, rows);
        let call = FeedForwardNorm { y: &y, linear1: &linear1, linear2: &linear2, norm: &norm, dropout };
        Ok(PyTensor(ops::feed_forward::feed_forward_norm(&[call]).remove(0)))
    })
}

#[pyfunction]
fn mean_pool(py: Python<'_>, x: PyTensor, lengths: Vec<i64>) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_kinds(&[("x", &x)])?;
        let [rows, _] = frames("x", &x)?;
        let x = Ragged { layout: layout("lengths", lengths, rows)?, frames: x.0 };
        Ok(PyTensor(ops::pooling::pool(&x, Pooling::Mean)))
    })
}

#[pyfunction]
fn cmd(py: Python<'_>, p: PyTensor, q: PyTensor) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_pair(&p, &q)?;
        Ok(PyTensor(ops::cmd::cmd(&p, &q)))
    })
}

#[pyfunction]
fn orthogonality(py: Python<'_>, p: PyTensor, q: PyTensor, normalize: bool) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_pair(&p, &q)?;
        Ok(PyTensor(kernels_alone(|| loss::orthogonality(&p, &q, normalize))))
    })
}

fn check_pair(p: &Tensor, q: &Tensor) -> Result<()> {
    check_kinds(&[("p", p), ("q", q)])?;
    check_shape("p", p, &[-1, -1], "(B, d)")?;
    check_shape("q", q, &p.size(), "(B, d)")
}

#[pyfunction]
fn task_loss(
    py: Python<'_>,
    score: PyTensor,
    label: PyTensor,
    scores: Vec<PyTensor>,
    pseudo_labels: Vec<PyTensor>,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        if scores.len() != pseudo_labels.len() {
            return Err(Error::Batch(format!(
                "scores and pseudo_labels must name the same modalities, got {} and {}",
                scores.len(),
                pseudo_labels.len()
            )));
        }
        let mut named = vec![("score", &score.0), ("label", &label.0)];
        named.extend(scores.iter().map(|t| ("scores", &t.0)));
        named.extend(pseudo_labels.iter().map(|t| ("pseudo_labels", &t.0)));
        check_kinds(&named)?;
        check_shape("score", &score, &[-1], "(B,)")?;
        for (name, tensor) in &named[1..] {
            check_shape(name, tensor, &score.size(), "(B,)")?;
        }
        let unimodal = scores.iter().map(|t| &t.0).zip(pseudo_labels.iter().map(|t| &t.0));
        Ok(PyTensor(kernels_alone(|| loss::task(&score, &label, unimodal, None))))
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as in the paper
fn ulgm_labels(
    py: Python<'_>,
    old: PyTensor,
    label: PyTensor,
    features: PyTensor,
    positive: PyTensor,
    negative: PyTensor,
    features_m: PyTensor,
    positive_m: PyTensor,
    negative_m: PyTensor,
    epoch: i64,
    bound: f64,
) -> PyResult<PyTensor> {
    entry::run_as_is(py, move || {
        check_kinds(&[
            ("old", &old),
            ("label", &label),
            ("features", &features),
            ("positive", &positive),
            ("negative", &negative),
            ("features_m", &features_m),
            ("positive_m", &positive_m),
            ("negative_m", &negative_m),
        ])?;
        require(epoch >= 2, "epoch", "at least 2: labels stay as they are in the first", epoch)?;
        require(bound.is_finite() && bound > 0.0, "bound", "finite and above 0", bound)?;
        check_shape("label", &label, &[-1], "(R,)")?;
        let rows = label.size()[0];
        check_shape("old", &old, &[rows], "(R,)")?;
        check_shape("features", &features, &[rows, -1], "(R, dim)")?;
        check_shape("features_m", &features_m, &[rows, -1], "(R, dim)")?;
        for (name, centre, features) in [
            ("positive", &positive, &features),
            ("negative", &negative, &features),
            ("positive_m", &positive_m, &features_m),
            ("negative_m", &negative_m, &features_m),
        ] {
            check_shape(name, centre, &[features.size()[1]], "(dim,)")?;
        }
        let _no_grad = tch::no_grad_guard();
        let own = [features, positive, negative].map(|x| plain(&x));
        let multimodal = [features_m, positive_m, negative_m].map(|x| plain(&x));
        let (mut new, label) = (old.contiguous().copy(), plain(&label));
        match new.kind() {
            _ if takes(&new) => ulgm::relabel(&new, &label, &own, &multimodal, epoch, bound),
            Kind::Double => relabel_in_place::<f64>(&mut new, &label, &own, &multimodal, epoch, bound),
            _ => relabel_in_place::<f32>(&mut new, &label, &own, &multimodal, epoch, bound),
        }
        Ok(PyTensor(new))
    })
}

/// `own` and `multimodal` are features, positive and negative centre; overwrites `labels` with the new ones.
fn relabel_in_place<T: Real + Element>(
    labels: &mut Tensor,
    y_m: &Tensor,
    own: &[Tensor; 3],
    multimodal: &[Tensor; 3],
    epoch: i64,
    bound: f64,
) {
    // SAFETY: `labels` was just made for this call; no other thread writes the others during it, as for any operation
    // of libtorch's.
    unsafe {
        let [own, multimodal] = [own, multimodal].map(|[features, positive, negative]| Space {
            features: slice(features),
            positive: slice(positive),
            negative: slice(negative),
        });
        relabel(Relabel { own, multimodal, y_m: slice::<T>(y_m), epoch, bound }, slice_mut(labels));
    }
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as torch.optim has them
fn adam_(
    py: Python<'_>,
    weights: PyTensor,
    grad: PyTensor,
    first: PyTensor,
    second: PyTensor,
    step: i32,
    lr: f64,
    weight_decay: f64,
    decoupled: bool,
) -> PyResult<()> {
    entry::run_as_is(py, move || {
        let named = [("weights", &weights.0), ("grad", &grad.0), ("first", &first.0), ("second", &second.0)];
        check_kinds(&named)?;
        for (name, tensor) in named {
            check_shape(name, tensor, &[weights.numel() as i64], "(N,)")?;
            if !tensor.is_contiguous() || !is_aligned(tensor) {
                let what = "contiguous, at an address that is a multiple of its numbers' size";
                return Err(Error::Batch(format!("{name} must be {what}: it is changed in place")));
            }
        }
        require(step >= 1, "step", "at least 1", step)?;
        for (name, value) in [("lr", lr), ("weight_decay", weight_decay)] {
            require(value.is_finite() && value >= 0.0, name, "finite and at least 0", value)?;
        }
        let how = if decoupled { Decay::Decoupled } else { Decay::Coupled };
        let settings = Settings {
            t: step,
            t_at: Pointer::NULL,
            unless: Pointer::NULL,
            rate: lr,
            decay: weight_decay,
            rates_at: Pointer::NULL,
            how,
            scale: 1.0,
            after: After::Keep,
        };
        let slice = Slice { weights: weights.0, grad: grad.0, first: first.0, second: second.0, copy: None };
        if !apart(slice.changed()) {
            return Err(Error::Batch(
                "weights, grad, first and second must not share memory, got some that do".into(),
            ));
        }
        adam(vec![(slice, settings)]);
        Ok(())
    })
}

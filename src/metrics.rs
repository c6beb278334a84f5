//! The field's measures, in float64: those of CMU-MOSI and CMU-MOSEI, and those of CH-SIMS.
//!
//! Both take slices of equal length, at least one element, and return measures by name; accuracies and F1 are
//! shares in [0, 1]. NaN stands where a measure has no value: `corr` of a constant side, `non0_*` where every truth is
//! zero.

/// Measures of scores in [-3, 3].
pub fn mosi(truth: &[f64], prediction: &[f64]) -> Vec<(&'static str, f64)> {
    let pairs = || truth.iter().copied().zip(prediction.iter().copied());
    let has0: Vec<_> = pairs().map(|(t, p)| (t >= 0.0, p >= 0.0)).collect();
    let non0: Vec<_> = pairs().filter(|(t, _)| *t != 0.0).map(|(t, p)| (t > 0.0, p > 0.0)).collect();
    vec![
        ("has0_acc2", share(has0.iter().map(|(t, p)| t == p))),
        ("has0_f1", weighted_f1(&has0)),
        ("non0_acc2", share(non0.iter().map(|(t, p)| t == p))),
        ("non0_f1", weighted_f1(&non0)),
        ("acc7", share(pairs().map(|(t, p)| class(t, 3.0) == class(p, 3.0)))),
        ("acc5", share(pairs().map(|(t, p)| class(t, 2.0) == class(p, 2.0)))),
        ("mae", mean(pairs().map(|(t, p)| (t - p).abs()))),
        ("corr", pearson(truth, prediction)),
    ]
}

/// Measures of scores in [-1, 1], to which both sides are clipped first.
pub fn sims(truth: &[f64], prediction: &[f64]) -> Vec<(&'static str, f64)> {
    let [truth, prediction] =
        [truth, prediction].map(|side| side.iter().map(|x| x.clamp(-1.0, 1.0)).collect::<Vec<f64>>());
    let pairs = || truth.iter().copied().zip(prediction.iter().copied());
    let same = |cuts: &[f64]| share(pairs().map(|(t, p)| interval(t, cuts) == interval(p, cuts)));
    let positive: Vec<_> = pairs().map(|(t, p)| (t > 0.0, p > 0.0)).collect();
    vec![
        ("acc2", share(positive.iter().map(|(t, p)| t == p))),
        ("acc3", same(&[-0.1, 0.1])),
        ("acc5", same(&[-0.7, -0.1, 0.1, 0.7])),
        ("f1", weighted_f1(&positive)),
        ("mae", mean(pairs().map(|(t, p)| (t - p).abs()))),
        ("corr", pearson(&truth, &prediction)),
    ]
}

/// The index of the interval, open below and closed above, that a score lies in. Scores are rounded to float32, as
/// which they leave a model; cuts are not, so that a label of 0.1, in float32 a little more, lies above the cut 0.1.
fn interval(score: f64, cuts: &[f64]) -> usize {
    cuts.iter().filter(|cut| f64::from(score as f32) > **cut).count()
}

/// The sentiment class: clipped to the bound, rounded half to even.
fn class(score: f64, bound: f64) -> i8 {
    score.clamp(-bound, bound).round_ties_even() as i8
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    sum / count as f64
}

fn share(hits: impl Iterator<Item = bool>) -> f64 {
    mean(hits.map(|hit| f64::from(u8::from(hit))))
}

/// F1 of both classes, weighted by how often each is true; the F1 of a class that is neither predicted nor
/// true is zero.
fn weighted_f1(pairs: &[(bool, bool)]) -> f64 {
    [false, true].iter().fold(0.0, |sum, &class| {
        let support = pairs.iter().filter(|(t, _)| *t == class).count() as f64;
        let predicted = pairs.iter().filter(|(_, p)| *p == class).count() as f64;
        let both = pairs.iter().filter(|(t, p)| *t == class && *p == class).count() as f64;
        let f1 = if support + predicted > 0.0 { 2.0 * both / (support + predicted) } else { 0.0 };
        sum + f1 * support / pairs.len() as f64
    })
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let constant = |v: &[f64]| v.iter().all(|e| *e == v[0]);
    if constant(x) || constant(y) {
        return f64::NAN;
    }
    let (mx, my) = (mean(x.iter().copied()), mean(y.iter().copied()));
    let dot = |a: &[f64], ma: f64, b: &[f64], mb: f64| {
        a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum::<f64>()
    };
    let r = dot(x, mx, y, my) / (dot(x, mx, x, mx).sqrt() * dot(y, my, y, my).sqrt());
    r.clamp(-1.0, 1.0)
}

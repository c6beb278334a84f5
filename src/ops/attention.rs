//! Scaled dot-product attention between ragged sequences, equations (10), (15) and (21).

use tch::{Kind, Tensor};

use crate::ragged::{Layout, split};
use crate::rng::Noise;

/// Queries, keys and values, projected, packed.
pub struct Qkv<'a> {
    pub query: &'a Tensor,
    pub key: &'a Tensor,
    pub value: &'a Tensor,
}

/// softmax(Q K^T / sqrt(d / heads)) V in `heads` heads, each utterance's queries over its own true keys,
/// dropout with probability `p` on the attention probabilities.
///
/// # Shapes
/// `query` `(sum Tq, d)`, `key` and `value` `(sum Tk, d)` to `(sum Tq, d)`.
pub fn attention(qkv: &Qkv, queries: &Layout, keys: &Layout, heads: i64, p: f64, noise: &Noise) -> Tensor {
    let width = qkv.query.size()[1];
    let scale = ((width / heads) as f64).sqrt().recip();
    // (T, d) to (heads, T, d / heads)
    let by_head = |x: &Tensor| x.view([-1, heads, width / heads]).transpose(0, 1);
    let query = split(&(qkv.query * scale), queries);
    let (key, value) = (split(qkv.key, keys), split(qkv.value, keys));
    let utterances: Vec<Tensor> = (0..queries.batch_size())
        .map(|b| {
            let scores = by_head(&query[b]).bmm(&by_head(&key[b]).transpose(1, 2)); // (heads, Tq, Tk)
            let probabilities = noise.dropout(scores.softmax(-1, None::<Kind>), p);
            probabilities.bmm(&by_head(&value[b])).transpose(0, 1).reshape([-1, width])
        })
        .collect();
    Tensor::cat(&utterances, 0)
}

//! Products of matrices on a device, several in one launch.

use tch::Tensor;

use super::reduce::{AddParts, Parts};
use super::source;
use crate::device::limits::WARP;
use crate::device::{GradientTo, Grid, Kernel, Pointer, Source, launch, launch_by};
use crate::ops::linear::Activation;

pub const SOURCE: Source = source("product", include_str!("product.cu"));
const COLUMN_SUMS: Kernel = Kernel { source: SOURCE, name: "column_sums" };

/// The tiles into which a kernel cuts C, as in `product.cu`.
struct Tiles {
    kernel: Kernel,
    /// Rows and columns of a tile.
    size: usize,
    /// Depth of a slice along k.
    depth: usize,
    threads: usize,
}

const LARGE: Tiles =
    Tiles { kernel: Kernel { source: SOURCE, name: "product" }, size: 64, depth: 16, threads: 128 };
const SMALL: Tiles =
    Tiles { kernel: Kernel { source: SOURCE, name: "small_product" }, size: 32, depth: 32, threads: 64 };

/// The most products of one launch, as in `product.cu`.
const CALLS: usize = 24;
/// Large tiles are used where there are at least as many as a card has multiprocessors.
const MULTIPROCESSORS: usize = 132;
/// A product with fewer tiles than this divides k among blocks, into parts of at least this size.
const TILES: usize = 128;
const SHARE: usize = 128;
/// The same two numbers for sums of columns.
const SUMS: usize = 256;
const SUMMED: usize = 64;
/// The most parts of a sum.
const MOST_PARTS: usize = 64;

/// A matrix on a device: its address, sizes and strides.
#[derive(Clone, Copy, Debug)]
pub struct MatrixAt {
    pub at: Pointer,
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl MatrixAt {
    /// A contiguous matrix.
    pub fn new(at: Pointer, rows: usize, columns: usize) -> Self {
        Self::strided(at, rows, columns, columns)
    }

    /// A matrix with rows `stride` apart.
    pub fn strided(at: Pointer, rows: usize, columns: usize, stride: usize) -> Self {
        Self { at, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self {
            at: self.at,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// C = act(A B + bias), written or added to C.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub a: MatrixAt,
    pub b: MatrixAt,
    /// `(n,)`, or null.
    pub bias: Pointer,
    pub activation: Activation,
    /// Receives A B + bias, `(m, n)`; or null.
    pub before: Pointer,
    /// `(m, n)`, or null: C is zero where this is not above zero.
    pub positive: Pointer,
    /// A matrix and the place for C times it, element by element; `(m, n)` each.
    pub times: Option<[Pointer; 2]>,
    /// The address of the number of C's true rows, which zeros follow; or null.
    pub true_rows: Pointer,
    pub c: GradientTo,
    /// Distance from one row of C to the next.
    pub c_stride: usize,
    /// The sum of each row of A, `(m,)`: the bias's gradient, where C is the weight's, dY^T X.
    pub row_sums: GradientTo,
}

impl Product {
    /// C = A B, contiguous.
    pub fn new(a: MatrixAt, b: MatrixAt, c: GradientTo) -> Self {
        Self {
            a,
            b,
            bias: Pointer::NULL,
            activation: Activation::None,
            before: Pointer::NULL,
            positive: Pointer::NULL,
            times: None,
            true_rows: Pointer::NULL,
            c,
            c_stride: b.columns,
            row_sums: GradientTo::NOWHERE,
        }
    }

    /// The gradients of a map's weight and bias, dY^T X and the sums of dY's columns.
    pub fn of_weights(dy: MatrixAt, x: MatrixAt, weight: GradientTo, bias: GradientTo) -> Self {
        Self { row_sums: bias, ..Self::new(dy.t(), x, weight) }
    }

    /// Whether C = A B and nothing else, so that it can be a sum of parts.
    fn is_plain(&self) -> bool {
        self.bias.is_null()
            && self.activation == Activation::None
            && self.before.is_null()
            && self.positive.is_null()
            && self.times.is_none()
            && self.true_rows.is_null()
            && self.c_stride == self.b.columns
    }

    fn tiles(&self, tiles: &Tiles) -> usize {
        self.a.rows.div_ceil(tiles.size) * self.b.columns.div_ceil(tiles.size)
    }

    /// The number of parts of k, and the size of each.
    fn splits(&self, tiles: &Tiles) -> [usize; 2] {
        let k = self.a.columns;
        if self.is_plain() { share(k, SHARE, TILES / self.tiles(tiles).max(1), tiles.depth) } else { [1, k] }
    }
}

/// The sum of each column of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct ColumnSums {
    pub matrix: MatrixAt,
    /// `(columns,)`
    pub to: GradientTo,
}

/// The number of parts of `count`, at most `parts`, and the size of each, a multiple of `unit` and in general at
/// least `least`.
fn share(count: usize, least: usize, parts: usize, unit: usize) -> [usize; 2] {
    let parts = parts.min(count / least).clamp(1, MOST_PARTS);
    let size = count.div_ceil(parts).next_multiple_of(unit).max(unit);
    [count.div_ceil(size).max(1), size]
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    a: Pointer,
    b: Pointer,
    bias: Pointer,
    before: Pointer,
    positive: Pointer,
    times: [Pointer; 2],
    true_rows: Pointer,
    c: GradientTo,
    row_sums: GradientTo,
    parts: Pointer,
    m: i32,
    n: i32,
    k: i32,
    a_row: i32,
    a_column: i32,
    b_row: i32,
    b_column: i32,
    c_row: i32,
    activation: i32,
    splits: i32,
    depth: i32,
}

/// Computes all products and sums of rows at the same time, except those whose place is `NOWHERE`.
pub fn products(like: &Tensor, products: &[Product]) {
    let mut parts = Parts::default();
    products_in_parts(like, products, &mut parts);
    parts.add_up(like);
}

/// [`products`], but sums that are made in parts are left to `parts`, which adds them up together with others.
pub fn products_in_parts(like: &Tensor, products: &[Product], parts: &mut Parts) {
    let (whole, sums): (Vec<&Product>, Vec<_>) = products.iter().partition(|p| !p.c.is_nowhere());
    for products in whole.chunks(CALLS) {
        let count =
            |tiles: &Tiles| products.iter().map(|p| p.tiles(tiles) * p.splits(tiles)[0]).sum::<usize>();
        let tiles = if count(&LARGE) < MULTIPROCESSORS { &SMALL } else { &LARGE };
        launch_tiles(like, products, tiles, parts);
    }
    let sums = sums.iter().map(|p| ColumnSums { matrix: p.a.t(), to: p.row_sums });
    column_sums_in_parts(like, &sums.collect::<Vec<_>>(), parts);
}

fn launch_tiles(like: &Tensor, products: &[&Product], tiles: &Tiles, parts: &mut Parts) {
    // The size of one part of a product: C, then the sums of rows.
    let size = |p: &Product| p.a.rows * p.b.columns + p.a.rows;
    let needed = |p: &Product| match p.splits(tiles) {
        [1, _] => 0,
        [splits, _] => splits * size(p),
    };
    let memory = parts.memory(products.iter().map(|p| needed(p)).sum(), like);
    let mut used = 0;
    let calls = products.iter().map(|p| {
        assert_eq!(p.a.columns, p.b.rows, "a product of matrices that fit");
        let (m, n, [splits, depth]) = (p.a.rows, p.b.columns, p.splits(tiles));
        let own = memory.offset(used, like.kind());
        used += needed(p);
        if splits > 1 {
            let (count, stride) = (splits as i32, size(p) as i32);
            let sums = own.offset(m * n, like.kind());
            parts.push(AddParts { parts: own, to: p.c, count, size: (m * n) as i32, stride });
            parts.push(AddParts { parts: sums, to: p.row_sums, count, size: m as i32, stride });
        }
        Arguments {
            a: p.a.at,
            b: p.b.at,
            bias: p.bias,
            before: p.before,
            positive: p.positive,
            times: p.times.unwrap_or([Pointer::NULL; 2]),
            true_rows: p.true_rows,
            c: p.c,
            row_sums: p.row_sums,
            parts: own,
            m: m as i32,
            n: n as i32,
            k: p.a.columns as i32,
            a_row: p.a.row_stride as i32,
            a_column: p.a.column_stride as i32,
            b_row: p.b.row_stride as i32,
            b_column: p.b.column_stride as i32,
            c_row: p.c_stride as i32,
            activation: p.activation as i32,
            splits: splits as i32,
            depth: depth as i32,
        }
    });
    let (calls, Tiles { kernel, size, depth, threads }) = (calls.collect::<Vec<_>>(), tiles);
    launch_by::<CALLS, _>(*kernel, like, &calls, |p| {
        let count = (p.m as usize).div_ceil(*size) * (p.n as usize).div_ceil(*size) * p.splits as usize;
        Grid::line(count, *threads).with_shared(2 * depth * 2 * (size + 4))
    });
}

#[repr(C)]
#[derive(Clone, Copy)]
struct SumArguments {
    x: Pointer,
    to: GradientTo,
    parts: Pointer,
    rows: i32,
    columns: i32,
    row_stride: i32,
    column_stride: i32,
    splits: i32,
    depth: i32,
}

/// Computes all sums at the same time, except those whose place is `NOWHERE`; `parts` adds up those made in parts.
pub fn column_sums_in_parts(like: &Tensor, sums: &[ColumnSums], parts: &mut Parts) {
    let calls = sums.iter().filter(|sum| !sum.to.is_nowhere()).map(|ColumnSums { matrix, to }| {
        let MatrixAt { at, rows, columns, row_stride, column_stride } = *matrix;
        let [splits, depth] = share(rows, SUMMED, SUMS / columns.div_ceil(WARP).max(1), 1);
        let memory = if splits > 1 { parts.memory(splits * columns, like) } else { Pointer::NULL };
        if splits > 1 {
            let (count, size) = (splits as i32, columns as i32);
            parts.push(AddParts { parts: memory, to: *to, count, size, stride: size });
        }
        SumArguments {
            x: at,
            to: *to,
            parts: memory,
            rows: rows as i32,
            columns: columns as i32,
            row_stride: row_stride as i32,
            column_stride: column_stride as i32,
            splits: splits as i32,
            depth: depth as i32,
        }
    });
    launch(COLUMN_SUMS, like, &calls.collect::<Vec<_>>(), |sum| {
        Grid::line((sum.columns as usize).div_ceil(WARP) * sum.splits as usize, 8 * WARP)
    });
}

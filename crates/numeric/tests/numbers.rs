//! Working memory, registers and products, at every edge.

use mmiln_numeric::{
    LaidOut, Lanes, Matrix, Real, Scratch, Shared, Start, add, kernel, multiply, product, windows,
};

/// Small enough for miri, larger than any register, and past each tile's end.
const WIDTHS: [usize; 9] = [1, 2, 3, 7, 8, 9, 16, 17, 33];

kernel! {
    fn squares<'a, T>(simd; to: &'a mut [T], x: &'a [T]) {
        for w in windows::<S, T>(simd, x.len()) {
            let x = w.read(x);
            w.write(to, x * x);
        }
    }
}

kernel! {
    fn rows<'a, T>(simd; to: &'a mut [T], x: &'a [T], width: &'a usize) {
        for w in windows::<S, T>(simd, *width) {
            let [a, b]: [Lanes<S, T>; 2] = w.read_rows(x);
            w.write_rows(to, [b, a]);
        }
    }
}

kernel! {
    fn products<'a, T>(simd; a: Matrix<'a, T>, b: Matrix<'a, T>, c: &'a mut [T], stride: &'a usize,
                       start: Start<'a, T>) {
        product(simd, a, b, c, *stride, start);
    }
}

fn numbers<T: Real>(count: usize) -> Vec<T> {
    (0..count).map(|i| T::of((i * 7 % 11) as f64 - 5.0)).collect()
}

fn windows_stay_in_their_rows<T: Real>() {
    for width in WIDTHS {
        let x = numbers::<T>(width);
        let mut to = vec![T::ZERO; width];
        squares(&mut to, &x);
        assert!(to.iter().zip(&x).all(|(&to, &x)| to == x * x));
        add(&mut to, &x);
        assert!(to.iter().zip(&x).all(|(&to, &x)| to == x * x + x));
        let x = numbers::<T>(2 * width);
        let mut to = vec![T::ZERO; 2 * width];
        rows(&mut to, &x, &width);
        assert!(to[..width] == x[width..] && to[width..] == x[..width]);
    }
}

#[test]
fn windows_stay_in_their_rows_f32() {
    windows_stay_in_their_rows::<f32>();
}

#[test]
fn windows_stay_in_their_rows_f64() {
    windows_stay_in_their_rows::<f64>();
}

/// Compares with three loops, for both factors plain and transposed, rows of the result apart, and every start.
fn products_are_right<T: Real>() {
    for (m, n, k) in [
        (1, 1, 1),
        (2, 9, 3),
        (5, 17, 2),
        (9, 33, 4),
        (3, 1, 70),
        (11, 5, 1),
        (4, 7, 0),
        (0, 3, 2),
        (2, 0, 1),
    ] {
        let (a, b, row) = (numbers::<T>(m * k), numbers::<T>(k * n), numbers::<T>(n));
        let stride = n + 2;
        let flat = numbers::<T>((m * stride).max(2) - 2); // the last row ends the memory
        let mut turned = vec![T::ZERO; m * k];
        for r in 0..m {
            for c in 0..k {
                turned[c * m + r] = a[r * k + c];
            }
        }
        let laid_out = LaidOut::of(Matrix::new(&b, k, n));
        let left = [Matrix::new(&a, m, k), Matrix::new(&turned, k, m).t()];
        let right = [Matrix::new(&b, k, n), laid_out.view()];
        for (start, kind) in [(Start::Zero, 0), (Start::Itself, 1), (Start::Row(&row), 2)] {
            for a in left {
                for b in right {
                    for how in 0..2 {
                        let mut c = flat.clone();
                        match how {
                            0 => multiply(a, b, &mut c, stride, start),
                            _ => products(a, b, &mut c, &stride, start),
                        }
                        for (place, (&got, &before)) in c.iter().zip(&flat).enumerate() {
                            let (r, column) = (place / stride, place % stride);
                            let expected = if column < n {
                                let sum =
                                    (0..k).map(|i| left[0].row(r)[i] * right[0].row(i)[column]).sum::<T>();
                                sum + [T::ZERO, before, row[column]][kind]
                            } else {
                                before
                            };
                            assert!(got == expected, "{m} {n} {k} {kind}: {got:?} for {expected:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_right_f32() {
    products_are_right::<f32>();
}

#[test]
fn products_are_right_f64() {
    products_are_right::<f64>();
}

#[test]
fn working_memory_of_every_size() {
    for len in [0, 1, 15, 16, 17, 1000, (1 << 14) - 1, 1 << 14, (1 << 14) + 1] {
        let mut first = Scratch::<f32>::new(len);
        first.fill(1.0);
        let second = Scratch::<f32>::zeros(len);
        assert!(first.len() == len && first.iter().all(|&x| x == 1.0) && second.iter().all(|&x| x == 0.0));
        assert!(len == 0 || first.as_ptr().addr().is_multiple_of(64));
        std::thread::spawn(move || drop(first)).join().unwrap();
    }
}

#[test]
#[should_panic(expected = "elements 3 + 3 of 5")]
fn no_part_reaches_beyond_its_slice() {
    let mut data = [0; 5];
    let shared = Shared::new(&mut data);
    // SAFETY: the one part.
    unsafe { shared.part(3, 3) };
}

#[test]
#[should_panic(expected = "beyond its data")]
fn no_matrix_reaches_beyond_its_data() {
    multiply(Matrix::new(&[1.0; 5], 2, 3), Matrix::new(&[1.0; 3], 3, 1), &mut [0.0; 2], 1, Start::Zero);
}

//! How an operation in Rust takes part in libtorch's automatic differentiation.
//!
//! An [`Op`] knows slices. [`apply`] runs several of a kind at once and makes them one node of the graph,
//! whose backward is theirs. A parameter of the model brings the place where its gradients are summed up
//! ([`Input::grad`]): backward adds to it in place and the graph never sees a gradient of that parameter.

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::cuda::{self, GradientTo};
use super::parallel;
use super::profile::Record;
use crate::numeric::Real;

/// What an operation returns and what it keeps for backward.
pub struct Shapes {
    pub results: Vec<Vec<i64>>,
    /// Numbers of elements.
    pub saved: Vec<usize>,
}

/// What an operation has read, returned and kept.
pub struct Io<'a, T> {
    pub x: &'a [&'a [T]],
    pub y: &'a [&'a [T]],
    pub saved: &'a [&'a [T]],
}

/// A differentiable operation on contiguous slices, called where [`parallel::each`] may use several threads.
pub trait Op: Send + Sync + 'static {
    const NAME: &'static CStr;

    fn shapes(&self) -> Shapes;

    /// Overwrites the results `y` and, unless they are empty because nobody will ask for a gradient, the
    /// slices `saved`.
    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]);

    /// Adds to the gradients `dx` of those inputs that want one, given those of the results, `None` where
    /// nothing depends on one.
    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]);
}

/// The same operation on a CUDA device: launches, on the tensors of all calls together.
pub trait DeviceOp: Op + Sized {
    /// Whether forward works in what it saves, so that it needs it even where nobody will ask for a gradient.
    const WORKS_IN_SAVED: bool = false;

    /// Numbers of elements of what forward keeps for backward.
    fn saved_on_device(&self) -> Vec<usize> {
        self.shapes().saved
    }

    /// Overwrites results and, unless they are empty, what is saved.
    fn forward_on_device(calls: &[OnDevice<Self>]);

    /// Puts the gradients of those inputs that want one.
    fn backward_on_device(calls: &[BackOnDevice<Self>]);
}

/// A call on a device. Tensors are contiguous.
pub struct OnDevice<'a, O> {
    pub op: &'a O,
    pub x: &'a [Tensor],
    pub y: &'a [Tensor],
    pub saved: &'a [Tensor],
}

/// A call of which some results have a gradient.
pub struct BackOnDevice<'a, O> {
    pub call: OnDevice<'a, O>,
    pub dy: Vec<Option<&'a Tensor>>,
    /// Where the gradient of each input goes; all of its elements are to be put.
    pub dx: Vec<GradientTo>,
}

impl<O> BackOnDevice<'_, O> {
    /// Any of the tensors, which says the device and the kind of all.
    pub fn any(&self) -> &Tensor {
        &self.call.x[0]
    }
}

/// An input of an operation: a tensor of the graph, or a parameter with the place of its gradient.
pub struct Input<'a> {
    pub tensor: &'a Tensor,
    pub grad: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self { tensor, grad: None }
    }
}

/// An operation with its inputs.
pub struct Call<'a, O> {
    pub op: O,
    pub inputs: Vec<Input<'a>>,
}

/// A call as backward needs it: its tensors, cut off the graph, contiguous.
struct Done<O> {
    op: O,
    x: Vec<Tensor>,
    y: Vec<Tensor>,
    saved: Vec<Tensor>,
    grads: Vec<Grad>,
}

/// Where the gradient of an input goes.
enum Grad {
    Nowhere,
    Returned,
    Added(Tensor),
}

/// Runs the calls at the same time; returns the results of each.
///
/// # Panics
/// Where the tensors are not all of one floating-point kind on one device: callers check.
pub fn apply<O: DeviceOp>(calls: Vec<Call<O>>) -> Vec<Vec<Tensor>> {
    let first = calls[0].inputs[0].tensor;
    let (kind, device, on_device) = (first.kind(), first.device(), cuda::takes(first));
    assert!(
        matches!(kind, Kind::Float | Kind::Double),
        "{:?}: kernels compute in float32 or float64, not {kind:?}",
        O::NAME
    );
    let _current = cuda::Current::of(device);
    let empty = |shape: &[i64]| if on_device { cuda::empty(shape, kind, device) } else { empty(shape, kind) };
    // SAFETY: takes and returns plain values.
    let enabled = unsafe { mmiln_grad_enabled() };
    let wanted = |input: &Input| input.grad.is_some() || input.tensor.requires_grad();
    let differentiable = enabled && calls.iter().any(|call| call.inputs.iter().any(wanted));
    let mut edges = Vec::new();
    let done: Vec<Done<O>> = calls
        .into_iter()
        .map(|Call { op, inputs }| {
            let Shapes { results, mut saved } = op.shapes();
            if on_device {
                saved = op.saved_on_device();
            }
            let keeps = differentiable || (on_device && O::WORKS_IN_SAVED);
            let kept = |count: &usize| empty(&[if keeps { *count as i64 } else { 0 }]);
            let grads = inputs
                .iter()
                .map(|input| match input.grad {
                    _ if !differentiable => Grad::Nowhere,
                    Some(grad) => Grad::Added(grad.shallow_clone()),
                    None if input.tensor.requires_grad() => Grad::Returned,
                    None => Grad::Nowhere,
                })
                .collect();
            if differentiable {
                edges.extend(inputs.iter().filter(|i| i.grad.is_none()).map(|i| i.tensor.shallow_clone()));
            }
            Done {
                x: inputs.iter().map(|input| plain(input.tensor)).collect(),
                y: results.iter().map(|shape| empty(shape)).collect(),
                saved: saved.iter().map(kept).collect(),
                op,
                grads,
            }
        })
        .collect();
    match kind {
        _ if on_device => forward_on_device(&done),
        Kind::Double => forward::<O, f64>(&done),
        _ => forward::<O, f32>(&done),
    }
    let results: Vec<Vec<Tensor>> =
        done.iter().map(|call| call.y.iter().map(Tensor::shallow_clone).collect()).collect();
    if differentiable {
        // The node holds views, not the results themselves: these hold the node.
        let done = done
            .into_iter()
            .map(|call| Done { y: call.y.iter().map(Tensor::detach).collect(), ..call })
            .collect();
        attach(done, &edges, &results);
    }
    results
}

/// The tensor off the graph, its elements side by side.
fn plain(tensor: &Tensor) -> Tensor {
    let tensor = if tensor.requires_grad() { tensor.detach() } else { tensor.shallow_clone() };
    if tensor.is_contiguous() { tensor } else { tensor.contiguous() }
}

fn forward<O: Op, T: Real>(done: &[Done<O>]) {
    let _record = Record::forward(O::NAME);
    let mut work: Vec<_> =
        done.iter().map(|call| (&call.op, read(&call.x), write(&call.y), write(&call.saved))).collect();
    let elements = work.iter().map(|(_, x, y, _)| count(x) + y.iter().map(|y| y.len()).sum::<usize>()).sum();
    parallel::install(elements, || {
        parallel::each_of(&mut work, |(op, x, y, saved)| op.forward::<T>(x, y, saved));
    });
}

fn backward<O: Op, T: Real>(done: &[Done<O>], dy: &[Option<Tensor>], dx: &[Option<Tensor>]) {
    let _record = Record::backward(O::NAME);
    let (mut first_y, mut first_x) = (0, 0);
    let mut work = Vec::with_capacity(done.len());
    for call in done {
        let dy: Vec<Option<&[T]>> =
            dy[first_y..][..call.y.len()].iter().map(|dy| dy.as_ref().map(slice)).collect();
        let dx: Vec<Option<&mut [T]>> =
            dx[first_x..][..call.x.len()].iter().map(|dx| dx.as_ref().map(slice_mut)).collect();
        first_y += call.y.len();
        first_x += call.x.len();
        if dy.iter().any(Option::is_some) {
            let fresh: Vec<bool> = call.grads.iter().map(|grad| matches!(grad, Grad::Returned)).collect();
            work.push((&call.op, read(&call.x), read(&call.y), read(&call.saved), dy, dx, fresh));
        }
    }
    let elements = work.iter().map(|(_, x, y, ..)| 2 * (count(x) + count(y))).sum();
    parallel::install(elements, || {
        parallel::each_of(&mut work, |(op, x, y, saved, dy, dx, fresh)| {
            // A gradient that is returned is new memory; a parameter's is added to.
            for (dx, fresh) in dx.iter_mut().zip(fresh.iter()) {
                if let (Some(dx), true) = (dx, *fresh) {
                    dx.fill(T::ZERO);
                }
            }
            op.backward::<T>(&Io { x, y, saved }, dy, dx);
        });
    });
}

impl<O> Done<O> {
    fn on_device(&self) -> OnDevice<'_, O> {
        OnDevice { op: &self.op, x: &self.x, y: &self.y, saved: &self.saved }
    }
}

fn forward_on_device<O: DeviceOp>(done: &[Done<O>]) {
    let _record = Record::forward(O::NAME);
    O::forward_on_device(&done.iter().map(Done::on_device).collect::<Vec<_>>());
}

fn backward_on_device<O: DeviceOp>(done: &[Done<O>], dy: &[Option<Tensor>], dx: &[Option<Tensor>]) {
    let _record = Record::backward(O::NAME);
    let (mut dy, mut dx) = (dy.iter(), dx.iter());
    let mut calls = Vec::with_capacity(done.len());
    for call in done {
        let dy: Vec<Option<&Tensor>> = dy.by_ref().take(call.y.len()).map(Option::as_ref).collect();
        let to = |(dx, grad): (&Option<Tensor>, &Grad)| {
            let add = matches!(grad, Grad::Added(_));
            dx.as_ref().map_or(GradientTo::NOWHERE, |dx| GradientTo::new(dx, add))
        };
        let dx = dx.by_ref().take(call.x.len()).zip(&call.grads).map(to).collect();
        if dy.iter().any(Option::is_some) {
            calls.push(BackOnDevice { call: call.on_device(), dy, dx });
        }
    }
    if !calls.is_empty() {
        O::backward_on_device(&calls);
    }
}

fn count<T>(slices: &[&[T]]) -> usize {
    slices.iter().map(|x| x.len()).sum()
}

fn read<T: Real>(tensors: &[Tensor]) -> Vec<&[T]> {
    tensors.iter().map(slice).collect()
}

fn write<T: Real>(tensors: &[Tensor]) -> Vec<&mut [T]> {
    tensors.iter().map(slice_mut).collect()
}

/// The elements of a contiguous tensor.
pub fn slice<T: Real>(tensor: &Tensor) -> &[T] {
    slice_mut(tensor)
}

/// The elements of a contiguous tensor that nothing else reads or writes meanwhile: one that was just made,
/// or a part of the flat gradient.
#[allow(clippy::mut_from_ref)] // a tensor is a handle
pub fn slice_mut<T: Real>(tensor: &Tensor) -> &mut [T] {
    elements(tensor, if size_of::<T>() == size_of::<f64>() { Kind::Double } else { Kind::Float })
}

/// The same of a tensor of bytes.
#[allow(clippy::mut_from_ref)] // as above
pub fn bytes_mut(tensor: &Tensor) -> &mut [u8] {
    elements(tensor, Kind::Uint8)
}

#[allow(clippy::mut_from_ref)] // as above
fn elements<T>(tensor: &Tensor, kind: Kind) -> &mut [T] {
    assert!(tensor.kind() == kind && tensor.device() == Device::Cpu && tensor.is_contiguous());
    let len = tensor.numel();
    if len == 0 {
        return &mut [];
    }
    // SAFETY: a contiguous tensor of this kind holds `len` elements at its data pointer.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) }
}

/// A new tensor in memory that steps reuse.
fn empty(shape: &[i64], kind: Kind) -> Tensor {
    // SAFETY: the shape is good for the call; a tensor that comes back is ours.
    let tensor = unsafe { mmiln_empty(shape.as_ptr(), shape.len(), kind == Kind::Double) };
    assert!(!tensor.is_null(), "out of memory for a tensor of shape {shape:?}");
    // SAFETY: as above.
    unsafe { Tensor::from_ptr(tensor) }
}

// The C++ side, in csrc/

#[repr(C)]
struct Closure {
    data: *mut c_void,
    backward: unsafe extern "C" fn(
        *mut c_void,
        *const *mut C_tensor,
        usize,
        *mut *mut C_tensor,
        usize,
    ) -> *mut c_char,
    drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn mmiln_grad_enabled() -> bool;
    fn mmiln_empty(shape: *const i64, axes: usize, is_double: bool) -> *mut C_tensor;
    fn mmiln_attach(
        name: *const c_char,
        closure: Closure,
        inputs: *const *const C_tensor,
        input_count: usize,
        results: *const *const C_tensor,
        result_count: usize,
    ) -> *mut c_char;
}

fn attach<O: DeviceOp>(done: Vec<Done<O>>, edges: &[Tensor], results: &[Vec<Tensor>]) {
    let closure = Closure {
        data: Box::into_raw(Box::new(done)).cast(),
        backward: on_backward::<O>,
        drop: on_drop::<O>,
    };
    let inputs: Vec<_> = edges.iter().map(Tensor::as_ptr).collect();
    let results: Vec<_> = results.iter().flatten().map(Tensor::as_ptr).collect();
    // SAFETY: all pointers are good for the call; C++ takes the closure and drops it once.
    let error = unsafe {
        mmiln_attach(
            O::NAME.as_ptr(),
            closure,
            inputs.as_ptr(),
            inputs.len(),
            results.as_ptr(),
            results.len(),
        )
    };
    assert!(error.is_null(), "{:?}: {}", O::NAME, {
        // SAFETY: an error is a C string of malloc's.
        unsafe { CStr::from_ptr(error) }.to_string_lossy()
    });
}

unsafe extern "C" fn on_drop<O: DeviceOp>(data: *mut c_void) {
    // SAFETY: made by `attach`, dropped once.
    let done = unsafe { Box::from_raw(data.cast::<Vec<Done<O>>>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(done)));
}

/// `out` has one place for every input that is an edge of the graph.
unsafe extern "C" fn on_backward<O: DeviceOp>(
    data: *mut c_void,
    gradients: *const *mut C_tensor,
    results: usize,
    out: *mut *mut C_tensor,
    inputs: usize,
) -> *mut c_char {
    let caught = parallel::PANIC_IS_CAUGHT.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as handed over by `attach` and by the C++ node.
        let (done, gradients, out) = unsafe {
            (
                &*data.cast::<Vec<Done<O>>>(),
                std::slice::from_raw_parts(gradients, results),
                std::slice::from_raw_parts_mut(out, inputs),
            )
        };
        let (kind, device) = (done[0].x[0].kind(), done[0].x[0].device());
        let on_device = cuda::takes(&done[0].x[0]);
        let _current = cuda::Current::of(device);
        let dy: Vec<Option<Tensor>> = gradients
            .iter()
            // SAFETY: a tensor of C++'s, of which this makes another handle.
            .map(|&g| (!g.is_null()).then(|| unsafe { Tensor::clone_from_ptr(g) }.to_kind(kind).contiguous()))
            .collect();
        // A call on none of whose results anything depends has no gradients.
        let mut given = dy.iter();
        let concerned: Vec<bool> = done
            .iter()
            .map(|call| given.by_ref().take(call.y.len()).filter(|dy| dy.is_some()).count() > 0)
            .collect();
        let mut dx: Vec<Option<Tensor>> = done
            .iter()
            .zip(concerned)
            .flat_map(|(call, concerned)| call.x.iter().zip(&call.grads).map(move |pair| (concerned, pair)))
            .map(|(concerned, (x, grad))| match grad {
                Grad::Nowhere => None,
                Grad::Returned if !concerned => None,
                Grad::Returned if on_device => Some(cuda::empty(&x.size(), kind, device)),
                Grad::Returned => Some(empty(&x.size(), kind)),
                Grad::Added(to) => Some(to.shallow_clone()),
            })
            .collect();
        match kind {
            _ if on_device => backward_on_device(done, &dy, &dx),
            Kind::Double => backward::<O, f64>(done, &dy, &dx),
            _ => backward::<O, f32>(done, &dy, &dx),
        }
        let grads = done.iter().flat_map(|call| &call.grads);
        let edges = grads.zip(&mut dx).filter(|(grad, _)| !matches!(grad, Grad::Added(_)));
        for (place, (_, dx)) in out.iter_mut().zip(edges) {
            if let Some(mut dx) = dx.take() {
                *place = dx.as_mut_ptr();
                std::mem::forget(dx); // C++ owns it now
            }
        }
    }));
    parallel::PANIC_IS_CAUGHT.set(caught);
    let Err(panic) = outcome else { return std::ptr::null_mut() };
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "backward failed".into());
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a C string; C++ frees what malloc made.
    unsafe { libc_strdup(text.as_ptr()) }
}

unsafe extern "C" {
    #[link_name = "strdup"]
    fn libc_strdup(text: *const c_char) -> *mut c_char;
}

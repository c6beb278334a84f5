//! How an operation in Rust takes part in libtorch's automatic differentiation.
//!
//! An [`Op`] works on slices. [`apply`] runs several calls of one op at once and makes them one node of the graph. A
//! parameter of the model comes with the tensor in which its gradients are summed up ([`Input::grad`]): backward adds
//! to that in place, and the graph never sees a gradient of the parameter.
//!
//! The memory of tensors is libtorch's, which does not keep threads apart: as for libtorch's own operations, the caller
//! makes sure that no other thread writes its tensors meanwhile. Operations write only to new tensors and to gradients
//! of parameters, each of which belongs to a single input of the node.

use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::kind::Element;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::parallel;
use super::profile::Record;
use crate::device::{self, GradientTo};
use crate::error::{Fault, message_of};
use crate::numeric::{Number, Real};

/// The shapes of an operation's results, and the sizes of what it keeps for backward.
pub struct Shapes {
    pub results: Vec<Vec<i64>>,
    /// Numbers of elements.
    pub saved: Vec<usize>,
}

/// The slices that an operation has read, returned and kept.
pub struct Io<'a, T> {
    pub x: &'a [&'a [T]],
    pub y: &'a [&'a [T]],
    pub saved: &'a [&'a [T]],
}

/// A differentiable operation on contiguous slices, called where [`parallel::each`] may use several threads.
pub trait Op: Send + Sync + 'static {
    const NAME: &'static CStr;

    fn shapes(&self) -> Shapes;

    /// Overwrites the results `y` and the slices `saved`, which are empty where no gradient will be asked for.
    fn forward<T: Real>(&self, x: &[&[T]], y: &mut [&mut [T]], saved: &mut [&mut [T]]);

    /// Adds to the gradients `dx` of the inputs, `None` for those that need none, from the gradients `dy` of the
    /// results, `None` for those that the loss does not depend on.
    fn backward<T: Real>(&self, io: &Io<T>, dy: &[Option<&[T]>], dx: &mut [Option<&mut [T]>]);
}

/// The same operation on a CUDA device: it launches kernels on the tensors of all calls together. The defaults are for
/// an operation without kernels: it is refused on a device.
pub trait DeviceOp: Op + Sized {
    /// Whether forward uses `saved` as working memory, so that it needs it even where no gradient will be asked for.
    const WORKS_IN_SAVED: bool = false;

    /// Numbers of elements of the tensors that forward keeps for backward.
    fn saved_on_device(&self) -> Vec<usize> {
        self.shapes().saved
    }

    /// Overwrites the results and, unless they are empty, the `saved` tensors.
    fn forward_on_device(_calls: &[OnDevice<Self>]) {
        no_kernels::<Self>()
    }

    /// Puts the gradients of those inputs that need one.
    fn backward_on_device(_calls: &[BackOnDevice<Self>]) {
        no_kernels::<Self>()
    }
}

fn no_kernels<O: Op>() -> ! {
    let name = O::NAME.to_string_lossy();
    Fault::Device(format!("{name} has no CUDA kernel: call it with tensors on the CPU")).raise()
}

/// A call on a device. Tensors are contiguous.
pub struct OnDevice<'a, O> {
    pub op: &'a O,
    pub x: &'a [Tensor],
    pub y: &'a [Tensor],
    pub saved: &'a [Tensor],
}

/// A call with a gradient for at least one of its results.
pub struct BackOnDevice<'a, O> {
    pub call: OnDevice<'a, O>,
    pub dy: Vec<Option<&'a Tensor>>,
    /// The place for the gradient of each input; all of its elements must be written or added to.
    pub dx: Vec<GradientTo>,
}

impl<O> BackOnDevice<'_, O> {
    /// One of the tensors, all of which have the same kind and device.
    pub fn any(&self) -> &Tensor {
        &self.call.x[0]
    }
}

/// An input of an operation: a tensor of the graph, or a parameter with the tensor of its summed gradients.
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

/// A call as backward needs it: its tensors are detached and contiguous.
struct Done<O> {
    op: O,
    x: Vec<Tensor>,
    y: Vec<Tensor>,
    saved: Vec<Tensor>,
    grads: Vec<Grad>,
}

/// The destination of an input's gradient.
enum Grad {
    Nowhere,
    Returned,
    Added(Tensor),
}

/// Runs the calls at the same time; returns the results of each.
///
/// # Panics
/// Where the tensors are not all of one floating-point kind on one device: callers check. Where a trained parameter
/// occurs twice: several threads would add to its gradient at the same time.
pub fn apply<O: DeviceOp>(calls: Vec<Call<O>>) -> Vec<Vec<Tensor>> {
    let first = calls[0].inputs[0].tensor;
    let (kind, place, on_device) = (first.kind(), first.device(), device::takes(first));
    assert!(
        matches!(kind, Kind::Float | Kind::Double),
        "{:?}: kernels compute in float32 or float64, not {kind:?}",
        O::NAME
    );
    let _current = device::Current::of(place);
    let empty = |shape: &[i64]| empty(shape, kind, place);
    // SAFETY: takes and returns plain values.
    let enabled = unsafe { mmiln_grad_enabled() };
    let wanted = |input: &Input| input.grad.is_some() || input.tensor.requires_grad();
    let inputs = || calls.iter().flat_map(|call| &call.inputs);
    let differentiable = enabled && inputs().any(wanted);
    let own_places = !differentiable || apart(inputs().filter_map(|input| input.grad));
    assert!(own_places, "{:?}: a parameter occurs twice among the inputs of one node", O::NAME);
    let mut edges = Vec::new();
    let mut done: Vec<Done<O>> = calls
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
        Kind::Double => forward::<O, f64>(&mut done),
        _ => forward::<O, f32>(&mut done),
    }
    let results: Vec<Vec<Tensor>> =
        done.iter().map(|call| call.y.iter().map(Tensor::shallow_clone).collect()).collect();
    if differentiable {
        // The node holds detached views of the results: the results hold the node, so that would be a cycle.
        let done = done
            .into_iter()
            .map(|call| Done { y: call.y.iter().map(Tensor::detach).collect(), ..call })
            .collect();
        attach(done, &edges, &results);
    }
    results
}

/// The tensor, detached and contiguous, at an address that is a multiple of its elements' size.
pub fn plain(tensor: &Tensor) -> Tensor {
    let tensor = if tensor.requires_grad() { tensor.detach() } else { tensor.shallow_clone() };
    match tensor.is_contiguous() {
        true if is_aligned(&tensor) => tensor,
        true => tensor.copy(),
        false => tensor.contiguous(),
    }
}

/// Whether a tensor is aligned for its type: memory that a user lends to torch may begin anywhere.
pub fn is_aligned(tensor: &Tensor) -> bool {
    tensor.data_ptr().addr().is_multiple_of(tensor.kind().elt_size_in_bytes())
}

/// Whether no two of some contiguous tensors share memory.
pub fn apart<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    let mut spans: Vec<(usize, usize)> = tensors
        .into_iter()
        .map(|tensor| (tensor.data_ptr().addr(), tensor.numel() * tensor.kind().elt_size_in_bytes()))
        .filter(|&(_, bytes)| bytes > 0)
        .collect();
    spans.sort_unstable();
    spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
}

fn forward<O: Op, T: Real + Element>(done: &mut [Done<O>]) {
    let _record = Record::forward(O::NAME);
    let work = done.iter_mut().map(|Done { op, x, y, saved, .. }| {
        // SAFETY: results and what is saved are new tensors, which nobody else has yet; inputs are only read.
        let (x, [y, saved]) = unsafe {
            (read(x), [y, saved].map(|new| new.iter_mut().map(|new| slice_mut(new)).collect::<Vec<_>>()))
        };
        (&*op, x, y, saved)
    });
    let mut work: Vec<_> = work.collect();
    let elements = work.iter().map(|(_, x, y, _)| count(x) + y.iter().map(|y| y.len()).sum::<usize>()).sum();
    parallel::install(elements, || {
        parallel::each_of(&mut work, |(op, x, y, saved)| op.forward::<T>(x, y, saved));
    });
}

fn backward<O: Op, T: Real + Element>(done: &[Done<O>], dy: &[Option<Tensor>], dx: &mut [Option<Tensor>]) {
    let _record = Record::backward(O::NAME);
    let (mut dy, mut dx) = (dy.iter(), dx.iter_mut());
    let mut work = Vec::with_capacity(done.len());
    for call in done {
        // SAFETY: gradients that are returned are new tensors; those that are added to are apart from each other, as
        // `apply` has seen, and of the model's flat gradient, which no input is part of. All else is only read.
        let (x, y, saved, dy, dx) = unsafe {
            let dy: Vec<Option<&[T]>> =
                dy.by_ref().take(call.y.len()).map(|dy| dy.as_ref().map(|dy| slice(dy))).collect();
            let dx: Vec<Option<&mut [T]>> =
                dx.by_ref().take(call.x.len()).map(|dx| dx.as_mut().map(|dx| slice_mut(dx))).collect();
            (read(&call.x), read(&call.y), read(&call.saved), dy, dx)
        };
        if dy.iter().any(Option::is_some) {
            let fresh: Vec<bool> = call.grads.iter().map(|grad| matches!(grad, Grad::Returned)).collect();
            work.push((&call.op, x, y, saved, dy, dx, fresh));
        }
    }
    let elements = work.iter().map(|(_, x, y, ..)| 2 * (count(x) + count(y))).sum();
    parallel::install(elements, || {
        parallel::each_of(&mut work, |(op, x, y, saved, dy, dx, fresh)| {
            // A gradient that is returned is new memory and starts from zero; a parameter's is added to.
            for (dx, fresh) in dx.iter_mut().zip(fresh.iter()) {
                if let (Some(dx), true) = (dx, *fresh) {
                    dx.fill(<T as Number>::ZERO);
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

/// # Safety
/// As [`slice`].
unsafe fn read<T: Element>(tensors: &[Tensor]) -> Vec<&[T]> {
    // SAFETY: as the caller's.
    tensors.iter().map(|tensor| unsafe { slice(tensor) }).collect()
}

/// The elements of a contiguous tensor on the CPU.
///
/// # Safety
/// Nobody writes them as long as the slice lives: not this thread by way of another handle or a view, nor another one.
///
/// # Panics
/// Where the tensor is of another kind, not contiguous, not aligned, or on a device.
pub unsafe fn slice<T: Element>(tensor: &Tensor) -> &[T] {
    match elements(tensor) {
        (_, 0) => &[],
        // SAFETY: as many elements of this kind stand there; the rest is the caller's.
        (data, len) => unsafe { std::slice::from_raw_parts(data, len) },
    }
}

/// The elements of a contiguous tensor on the CPU, to be written.
///
/// # Safety
/// Nobody else reads or writes them as long as the slice lives, by whatever handle or view.
///
/// # Panics
/// As [`slice`].
pub unsafe fn slice_mut<T: Element>(tensor: &mut Tensor) -> &mut [T] {
    match elements(tensor) {
        (_, 0) => &mut [],
        // SAFETY: as many elements of this kind stand there; the rest is the caller's.
        (data, len) => unsafe { std::slice::from_raw_parts_mut(data, len) },
    }
}

/// The address of a tensor's elements, and their number.
fn elements<T: Element>(tensor: &Tensor) -> (*mut T, usize) {
    assert!(tensor.kind() == T::KIND && tensor.device() == Device::Cpu);
    assert!(tensor.is_contiguous() && is_aligned(tensor));
    (tensor.data_ptr().cast(), tensor.numel())
}

/// A new tensor; on the CPU in memory that steps reuse.
fn empty(shape: &[i64], kind: Kind, place: Device) -> Tensor {
    if device::runs_on(place) {
        return device::empty(shape, kind, place);
    }
    // SAFETY: the shape is good for the call.
    let tensor = unsafe { mmiln_empty(shape.as_ptr(), shape.len(), kind == Kind::Double) };
    if tensor.is_null() {
        Fault::Memory(format!("out of memory for a tensor of shape {shape:?}")).raise();
    }
    // SAFETY: a tensor that comes back is ours.
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

/// `out` has one place for each input that is an edge of the graph.
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
        let (kind, place) = (done[0].x[0].kind(), done[0].x[0].device());
        let _current = device::Current::of(place);
        let dy: Vec<Option<Tensor>> = gradients
            .iter()
            // SAFETY: a tensor of C++'s, of which this makes another handle.
            .map(|&g| (!g.is_null()).then(|| plain(&unsafe { Tensor::clone_from_ptr(g) }.to_kind(kind))))
            .collect();
        // A call has gradients only if the loss depends on one of its results.
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
                Grad::Returned => Some(empty(&x.size(), kind, place)),
                Grad::Added(to) => Some(to.shallow_clone()),
            })
            .collect();
        match kind {
            _ if device::runs_on(place) => backward_on_device(done, &dy, &dx),
            Kind::Double => backward::<O, f64>(done, &dy, &mut dx),
            _ => backward::<O, f32>(done, &dy, &mut dx),
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
    let text = CString::new(message_of(panic.as_ref()).replace('\0', " ")).unwrap_or_default();
    // SAFETY: a C string; C++ frees what malloc made.
    unsafe { libc_strdup(text.as_ptr()) }
}

unsafe extern "C" {
    #[link_name = "strdup"]
    fn libc_strdup(text: *const c_char) -> *mut c_char;
}

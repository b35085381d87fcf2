//! A device, through `sys`: what is said without one, and, where GRADREG_TEST_CUDA_MODULE and
//! GRADREG_TEST_CUDART name the emulated CUDA backend and its runtime, a step that has the bits of the CPU.

use gradreg::sys::*;
use gradreg::*;
use std::env;
use std::ffi::CString;
use std::mem::{size_of, size_of_val, transmute, zeroed};
use std::os::raw::{c_char, c_int, c_void};
use std::ptr;

extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn open() -> Result<*mut gradreg_context> {
    let mut handle = ptr::null_mut();
    // SAFETY: plain numbers and pointers, which _init fills in.
    unsafe {
        let mut params: gradreg_context_params = zeroed();
        check(gradreg_context_params_init(&mut params, size_of_val(&params)))?;
        params.backend = GRADREG_BACKEND_CUDA;
        check(gradreg_context_create(&mut handle, &params))?;
    }
    Ok(handle)
}

/// The few calls of the CUDA runtime that a trainer needs here.
struct Runtime {
    malloc: unsafe extern "C" fn(*mut *mut c_void, usize) -> c_int,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
    copy: unsafe extern "C" fn(*mut c_void, *const c_void, usize, c_int) -> c_int,
}

const TO_DEVICE: c_int = 1;
const TO_HOST: c_int = 2;

impl Runtime {
    /// SAFETY: `path` must be a CUDA runtime.
    unsafe fn load(path: &str) -> Runtime {
        let path = CString::new(path).unwrap();
        let library = dlopen(path.as_ptr(), 2);
        assert!(!library.is_null(), "{:?} does not open", path);
        let find = |name: &str| {
            let name = CString::new(name).unwrap();
            let found = dlsym(library, name.as_ptr());
            assert!(!found.is_null(), "no {:?}", name);
            found
        };
        Runtime {
            malloc: transmute(find("cudaMalloc")),
            free: transmute(find("cudaFree")),
            copy: transmute(find("cudaMemcpy")),
        }
    }

    fn place(&self, values: &[f32]) -> *mut c_void {
        let mut out = ptr::null_mut();
        // SAFETY: as many bytes as values has.
        assert_eq!(unsafe { (self.malloc)(&mut out, size_of_val(values)) }, 0);
        self.write(out, values);
        out
    }

    fn write(&self, to: *mut c_void, values: &[f32]) {
        let from = values.as_ptr() as *const c_void;
        // SAFETY: `to` came from place() with as many values.
        assert_eq!(unsafe { (self.copy)(to, from, size_of_val(values), TO_DEVICE) }, 0);
    }

    fn read(&self, from: *mut c_void) -> Vec<f32> {
        let mut out = vec![0.0f32; START.len()];
        let to = out.as_mut_ptr() as *mut c_void;
        // SAFETY: `from` came from place() with as many values.
        assert_eq!(unsafe { (self.copy)(to, from, size_of_val(&out[..]), TO_HOST) }, 0);
        out
    }
}

const START: [f32; 8] = [1.0, -2.0, 3.0, 0.5, -1.0, 2.0, 0.25, 4.0];

fn gradient(weights: &[f32]) -> Vec<f32> {
    weights.iter().enumerate().map(|(i, w)| (i + 1) as f32 * 0.25 * w).collect()
}

fn table() -> Vec<Segment> {
    vec![
        segment("model.layers.0.mlp.up_proj.weight", 0, 4).unwrap(),
        segment("model.layers.1.mlp.up_proj.weight", 4, 4).unwrap(),
    ]
}

fn on_the_cpu() -> Vec<f32> {
    let mut context = Context::new().unwrap();
    let mut regularizer = Regularizer::new(&mut context, &table(), Params::new(2)).unwrap();
    let (mut weights, mut grads) = (START.to_vec(), gradient(&START));
    regularizer.perturb(&mut Buffers::flat(&mut weights, &mut grads).unwrap()).unwrap();
    grads = gradient(&weights);
    regularizer.combine(&mut Buffers::flat(&mut weights, &mut grads).unwrap()).unwrap();
    assert_eq!(weights, START);
    grads
}

fn on_the_device(runtime: &Runtime) -> Vec<f32> {
    let context = open().unwrap();
    let (weights, grads) = (runtime.place(&START), runtime.place(&gradient(&START)));
    // SAFETY: device memory of eight floats each; handles are destroyed in order.
    unsafe {
        let mut params: gradreg_regularizer_params = zeroed();
        check(gradreg_regularizer_params_init(&mut params, size_of_val(&params))).unwrap();
        params.layer_count = 2;
        let (segments, mut handle) = (table(), ptr::null_mut());
        check(gradreg_regularizer_create(&mut handle, context, segments.as_ptr(), 2, &params))
            .unwrap();
        let mut buffers: gradreg_buffers = zeroed();
        buffers.struct_size = size_of::<gradreg_buffers>() as u32;
        buffers.params = weights;
        buffers.grads = grads;
        buffers.count = START.len();
        check(gradreg_regularizer_perturb(handle, &mut buffers)).unwrap();
        check(gradreg_context_synchronize(context)).unwrap();
        runtime.write(grads, &gradient(&runtime.read(weights)));
        check(gradreg_regularizer_combine(handle, &mut buffers)).unwrap();
        check(gradreg_context_synchronize(context)).unwrap();
        assert_eq!(runtime.read(weights), START);

        // A slice's address is no memory of the device.
        let mut host = START.to_vec();
        buffers.params = host.as_mut_ptr() as *mut c_void;
        let refused = check(gradreg_regularizer_perturb(handle, &mut buffers)).unwrap_err();
        assert_eq!(refused.status(), GRADREG_ERROR_INVALID_ARGUMENT, "{}", refused);
        assert!(refused.to_string().contains("params"), "{}", refused);
        check(gradreg_regularizer_destroy(handle)).unwrap();
        check(gradreg_context_destroy(context)).unwrap();
        let out = runtime.read(grads);
        (runtime.free)(weights);
        (runtime.free)(grads);
        out
    }
}

// One test: which module is looked for is the process's environment.
#[test]
fn a_device_is_reached_through_sys_or_its_absence_is_an_error() {
    env::set_var("GRADREG_CUDA_MODULE", "/nonexistent/libgradreg-cuda.so");
    let error = open().unwrap_err();
    assert_eq!(error.status(), GRADREG_ERROR_UNSUPPORTED);
    assert_eq!(error.kind(), Kind::Usage);
    for word in &["gradreg_context_create", "/nonexistent/libgradreg-cuda.so"] {
        assert!(error.to_string().contains(word), "{}", error);
    }

    match (env::var("GRADREG_TEST_CUDA_MODULE"), env::var("GRADREG_TEST_CUDART")) {
        (Ok(module), Ok(cudart)) => {
            env::set_var("GRADREG_CUDA_MODULE", module);
            // SAFETY: whoever set the variable says so.
            let runtime = unsafe { Runtime::load(&cudart) };
            assert_eq!(on_the_device(&runtime), on_the_cpu());
        }
        _ => println!("LEFT OUT: no emulated CUDA backend here"),
    }
}

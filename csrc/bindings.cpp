// NumPy arrays -> views, the GIL released, the kernel called: no logic of any op. Each row of the kernel table becomes
// a function kernel(*arrays, *numbers) in `_core.kernels`. Its arguments are checked against the row's spec here, once
// for all kernels: count, dtype, contiguity, writability. Shapes are the kernels' own business.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>

#include "internal.h"

namespace py = pybind11;

namespace fastnn {
namespace {

constexpr int ANY_FLOAT = -1;

struct Parameter {
  std::string name;
  char code;  // a, i or d, as in Kernel::signature
  bool output = false, optional = false;
  int dtype = ANY_FLOAT;
};

struct Entry {
  Kernel kernel;
  std::vector<Parameter> parameters;
  PyMethodDef method;
};

int dtype_named(const std::string& name) {
  const char* names[] = {"f32", "f64", "i32", "i64", "u8", "bool"};
  for (int i = 0; i < 6; ++i)
    if (name == names[i]) return i;
  throw std::logic_error("unknown dtype in a kernel's spec: " + name);
}

// "x, weight, bias? -> y, indices:i64 | momentum" against the signature derived from the C++ function.
std::vector<Parameter> parse_spec(const Kernel& kernel) {
  std::vector<Parameter> parameters;
  const std::string text = kernel.spec;
  bool output = false, number = false;
  for (size_t i = 0; i < text.size();) {
    if (text.compare(i, 2, "->") == 0) {
      output = true;
      i += 2;
    } else if (text[i] == '|') {
      number = true;
      ++i;
    } else if (text[i] == ' ' || text[i] == ',') {
      ++i;
    } else {
      const size_t end = std::min(text.find_first_of(" ,|", i), text.size());
      Parameter p;
      p.name = text.substr(i, end - i);
      i = end;
      p.output = output && !number;
      if (p.name.back() == '?') {
        p.optional = true;
        p.name.pop_back();
      }
      const size_t colon = p.name.find(':');
      if (colon != std::string::npos) {
        p.dtype = dtype_named(p.name.substr(colon + 1));
        p.name.resize(colon);
      }
      const size_t position = parameters.size();
      p.code = position < std::strlen(kernel.signature) ? kernel.signature[position] : '?';
      if ((p.code == 'a') == number) p.code = '?';
      parameters.push_back(p);
    }
  }
  bool agrees = parameters.size() == std::strlen(kernel.signature) && parameters.size() <= MAX_ARGS;
  for (const Parameter& p : parameters) agrees = agrees && p.code != '?';
  if (!agrees)
    throw std::logic_error(std::string("kernel ") + kernel.name + ": spec \"" + kernel.spec +
                           "\" does not match its C++ signature \"" + kernel.signature + "\"");
  return parameters;
}

int dtype_of(const py::detail::PyArray_Proxy* array) {
  const auto* descr = py::detail::array_descriptor1_proxy(array->descr);
  if (descr->byteorder == '>') return -2;
  switch (descr->type_num) {
    case py::detail::npy_api::NPY_FLOAT_: return int(DType::f32);
    case py::detail::npy_api::NPY_DOUBLE_: return int(DType::f64);
    case py::detail::npy_api::NPY_INT_: return int(DType::i32);
    case py::detail::npy_api::NPY_LONG_: return sizeof(long) == 8 ? int(DType::i64) : int(DType::i32);
    case py::detail::npy_api::NPY_LONGLONG_: return int(DType::i64);
    case py::detail::npy_api::NPY_UBYTE_: return int(DType::u8);
    case py::detail::npy_api::NPY_BOOL_: return int(DType::boolean);
    default: return -2;
  }
}

[[noreturn]] void reject(const Entry& entry, const Parameter& p, const char* why) {
  throw std::invalid_argument(std::string(entry.kernel.name) + ": '" + p.name + "' " + why);
}

void read_array(const Entry& entry, const Parameter& p, PyObject* object, Array* view, int* real) {
  if (object == Py_None) {
    if (!p.optional) reject(entry, p, "is required, got None");
    std::memset(view, 0, sizeof *view);
    view->ndim = -1;
    return;
  }
  if (!py::detail::npy_api::get().PyArray_Check_(object))
    throw py::type_error(std::string(entry.kernel.name) + ": '" + p.name + "' must be a NumPy array, got " +
                         Py_TYPE(object)->tp_name);
  const auto* array = py::detail::array_proxy(object);
  const int dtype = dtype_of(array);
  if (p.dtype == ANY_FLOAT) {
    if (dtype != int(DType::f32) && dtype != int(DType::f64))
      throw py::type_error(std::string(entry.kernel.name) + ": '" + p.name + "' must be float32 or float64");
    if (*real >= 0 && dtype != *real)
      throw py::type_error(std::string(entry.kernel.name) + ": '" + p.name +
                           "' and the arrays before it must be of one dtype, float32 or float64");
    *real = dtype;
  } else if (dtype != p.dtype) {
    throw py::type_error(std::string(entry.kernel.name) + ": '" + p.name + "' has the wrong dtype");
  }
  const int flags = array->flags;
  if (!(flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_)) reject(entry, p, "must be C-contiguous");
  if (!(flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) reject(entry, p, "must be aligned");
  if (p.output && !(flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) reject(entry, p, "is read-only");
  if (array->nd > MAX_DIMS) reject(entry, p, "has more than 8 dimensions");
  view->ptr = array->data;
  view->ndim = array->nd;
  view->dtype = static_cast<DType>(dtype);
  view->size = 1;
  for (int i = 0; i < array->nd; ++i) {
    view->shape[i] = array->dimensions[i];
    view->size *= array->dimensions[i];
  }
}

// Python's own message for a wrong number, under the kernel's and the argument's name.
[[noreturn]] void reject_number(const Entry& entry, const Parameter& p, PyObject* object) {
  const bool range = PyErr_ExceptionMatches(PyExc_OverflowError);
  PyErr_Clear();
  if (range) reject(entry, p, "is out of range");
  throw py::type_error(std::string(entry.kernel.name) + ": '" + p.name + "' must be " +
                       (p.code == 'i' ? "an int" : "a number") + ", got " + Py_TYPE(object)->tp_name);
}

void read_number(const Entry& entry, const Parameter& p, PyObject* object, Arg* arg) {
  if (p.code == 'i') {
    arg->integer = PyLong_AsLongLong(object);
    if (arg->integer == -1 && PyErr_Occurred()) reject_number(entry, p, object);
  } else if (p.code == 'd') {
    arg->real = PyFloat_AsDouble(object);
    if (arg->real == -1.0 && PyErr_Occurred()) reject_number(entry, p, object);
  }
}

// An output may be one of the other arrays as a whole (elementwise kernels allow it), never lie across one.
void check_overlap(const Entry& entry, const Arg* args) {
  const size_t count = entry.parameters.size();
  const auto bytes = [](const Array& a) {
    return a.size * (a.dtype == DType::f64 || a.dtype == DType::i64   ? 8
                     : a.dtype == DType::f32 || a.dtype == DType::i32 ? 4
                                                                      : 1);
  };
  for (size_t i = 0; i < count && entry.parameters[i].code == 'a'; ++i) {
    const Array& a = args[i].array;
    for (size_t j = 0; entry.parameters[i].output && a && j < count && entry.parameters[j].code == 'a'; ++j) {
      const Array& b = args[j].array;
      if (i == j || !b || (a.ptr == b.ptr && a.dtype == b.dtype && a.size == b.size)) continue;
      const char *pa = static_cast<const char*>(a.ptr), *pb = static_cast<const char*>(b.ptr);
      if (pa < pb + bytes(b) && pb < pa + bytes(a)) reject(entry, entry.parameters[i], "overlaps another array");
    }
  }
}

// Not an RAII guard: when the interpreter is ending, PyEval_RestoreThread ends the thread by unwinding it, and that
// must pass through no destructor and no handler of ours.
template <class F>
void without_gil(const F& body) {
  PyThreadState* state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    body();
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (error) std::rethrow_exception(error);
}

PyObject* call_kernel(PyObject* self, PyObject* const* objects, Py_ssize_t count) {
  try {
    const Entry& entry = *static_cast<const Entry*>(PyCapsule_GetPointer(self, nullptr));
    if (count != static_cast<Py_ssize_t>(entry.parameters.size()))
      throw py::type_error(std::string(entry.kernel.name) + " takes " + std::to_string(entry.parameters.size()) +
                           " arguments (" + entry.kernel.spec + "), got " + std::to_string(count));
    // Numbers first: converting one may run Python code, which must not happen once an array's pointer has been read.
    Arg args[MAX_ARGS];
    for (Py_ssize_t i = 0; i < count; ++i)
      read_number(entry, entry.parameters[static_cast<size_t>(i)], objects[i], &args[i]);
    int real = -1;
    for (Py_ssize_t i = 0; i < count; ++i) {
      const Parameter& p = entry.parameters[static_cast<size_t>(i)];
      if (p.code == 'a') read_array(entry, p, objects[i], &args[i].array, &real);
    }
    check_overlap(entry, args);
    try {
      without_gil([&] {
        FlushDenormals flush;
        entry.kernel.call[real == int(DType::f64)](args);
      });
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string(entry.kernel.name) + ": " + error.what());
    }
    Py_RETURN_NONE;
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// The functions live as long as the process: Python may hold them, and PyMethodDef must not move.
void add_kernels(py::module_& module) {
  py::dict specs;
  py::module_ kernels = module.def_submodule("kernels", "the kernels of the active instruction set");
  for (const Kernel& kernel : kernel_table()) {
    auto* entry = new Entry{kernel, parse_spec(kernel), {}};
    entry->method = {kernel.name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_kernel)),
                     METH_FASTCALL, kernel.spec};
    PyObject* self = PyCapsule_New(entry, nullptr, nullptr);
    PyObject* function = self ? PyCFunction_NewEx(&entry->method, self, nullptr) : nullptr;
    Py_XDECREF(self);
    if (function == nullptr) throw py::error_already_set();
    kernels.attr(kernel.name) = py::reinterpret_steal<py::object>(function);
    specs[kernel.name] = kernel.spec;
  }
  module.attr("specs") = specs;
}

struct Block {
  void* memory;
  size_t bytes;
};

void free_block(PyObject* capsule) {
  auto* block = static_cast<Block*>(PyCapsule_GetPointer(capsule, nullptr));
  block_give(block->memory, block->bytes);
  delete block;
}

// empty(shape, dtype): an uninitialised C-contiguous array on memory that is reused when the array dies. On the path of
// every op, so written against Python's C interface.
PyObject* empty(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyTuple_Check(args[0]) || !py::isinstance<py::dtype>(args[1]))
    return PyErr_Format(PyExc_TypeError, "empty takes a tuple of sizes and a dtype");
  const auto dtype = py::reinterpret_borrow<py::dtype>(args[1]);
  if (std::strchr("fiub", dtype.kind()) == nullptr)
    return PyErr_Format(PyExc_TypeError, "empty: the dtype must be a float, integer or boolean");
  const Py_ssize_t ndim = PyTuple_GET_SIZE(args[0]);
  py::ssize_t shape[32];
  if (ndim > 32) return PyErr_Format(PyExc_ValueError, "empty: more than 32 dimensions");
  auto bytes = static_cast<size_t>(dtype.itemsize());
  for (Py_ssize_t i = 0; i < ndim; ++i) {
    shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(args[0], i));
    if (shape[i] == -1 && PyErr_Occurred()) return nullptr;
    if (shape[i] < 0) return PyErr_Format(PyExc_ValueError, "empty: a size is negative");
    if (shape[i] > 0 && bytes > (size_t(1) << 62) / static_cast<size_t>(shape[i])) return PyErr_NoMemory();
    bytes *= static_cast<size_t>(shape[i]);
  }
  try {
    auto block = std::make_unique<Block>(Block{block_take(bytes), bytes});
    PyObject* owner = PyCapsule_New(block.get(), nullptr, free_block);
    if (owner == nullptr) {
      block_give(block->memory, bytes);
      return nullptr;
    }
    void* memory = block.release()->memory;  // the capsule's now
    auto& numpy = py::detail::npy_api::get();
    Py_INCREF(args[1]);  // the array takes a reference to its dtype
    PyObject* array = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, args[1], static_cast<int>(ndim), shape, nullptr,
                                                  memory, py::detail::npy_api::NPY_ARRAY_WRITEABLE_, nullptr);
    if (array == nullptr) {
      Py_DECREF(owner);
      return nullptr;
    }
    if (numpy.PyArray_SetBaseObject_(array, owner) < 0) {  // takes the reference to the owner, also when it fails
      Py_DECREF(array);
      return nullptr;
    }
    return array;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
}

PyMethodDef empty_method = {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(empty)), METH_FASTCALL,
                            "empty(shape, dtype): an uninitialised array on memory that is reused"};

}  // namespace
}  // namespace fastnn

PYBIND11_MODULE(_core, module) {
  using namespace fastnn;
  module.doc() = "fastnn's compiled core; use it through fastnn.kernels";
  try {
    active_isa();
  } catch (const std::invalid_argument& error) {
    throw py::import_error(error.what());
  }
  add_kernels(module);
  module.attr("empty") = py::reinterpret_steal<py::object>(PyCFunction_NewEx(&empty_method, nullptr, nullptr));
  module.def("isa", [] { return active_isa(); });
#if defined(__clang__)
  module.attr("compiler") = "clang " __clang_version__;
#else
  module.attr("compiler") = "gcc " __VERSION__;
#endif
  module.def("built_isas", [] {
    py::dict rows;
    for (const IsaStatus& row : built_isas()) rows[py::str(row.name)] = row.supported;
    return rows;
  });
  module.def("get_num_threads", get_num_threads);
  module.def(
      "set_num_threads",
      [](const py::object& count) {
        const long number = PyLong_AsLong(count.ptr());
        if (number == -1 && PyErr_Occurred()) {
          const bool range = PyErr_ExceptionMatches(PyExc_OverflowError);
          PyErr_Clear();
          const std::string text =
              "set_num_threads: expected an int from 1 to 256, got " + py::repr(count).cast<std::string>();
          if (range) throw py::value_error(text);
          throw py::type_error(text);
        }
        const int threads = static_cast<int>(std::max(-1L, std::min(number, 1L << 30)));
        without_gil([=] { set_num_threads(threads); });
      },
      py::arg("count"));
  module.def("default_num_threads", [] {
    std::string reason;
    const int count = default_num_threads(&reason);
    return py::make_tuple(count, reason);
  });
  module.def("memory_status", [] {
    const MemoryStatus status = memory_status();
    return py::make_tuple(status.live, status.cached);
  });
  module.def("memory_trim", memory_trim);
  py::module_::import("atexit").attr("register")(py::cpp_function([] { without_gil(stop_threads); }));
}

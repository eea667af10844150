// NumPy array -> view, the GIL released, the kernel called: no logic of any op. Each row of the kernel table becomes
// two functions, whose arguments are checked against the row's spec here, once for all kernels: count, dtype,
// contiguity, writability, and where the spec says so shape. `_core.kernels.name(*arrays, *numbers)` takes every
// argument and raises for a bad one. `_core.attempt.name` is the way without detours: it makes the outputs that the
// spec describes and returns them (True where all is in place), or does nothing and returns None where an argument
// needs a second look, which fastnn.kernels then takes: to copy it, or to say what is wrong. Other shapes are the
// kernels' own business.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "internal.h"

namespace py = pybind11;

namespace fastnn {
namespace {

constexpr int ANY_FLOAT = -1;

struct Parameter {
  std::string name;
  char code;  // a, l, i or d, as in Kernel::signature
  bool output = false, optional = false;
  int dtype = ANY_FLOAT;
  int like = -1;  // the parameter whose shape it has
  bool is_array() const { return code == 'a' || code == 'l'; }
};

struct Entry {
  Kernel kernel;
  std::vector<Parameter> parameters;
  size_t made;  // how many outputs `attempt` makes: all, or none where one is not described
  PyMethodDef method, attempt;
};

int dtype_named(const std::string& name) {
  const char* names[] = {"f32", "f64", "i32", "i64", "u8", "bool"};
  for (int i = 0; i < 6; ++i)
    if (name == names[i]) return i;
  throw std::logic_error("unknown dtype in a kernel's spec: " + name);
}

// "x, weight, bias? -> y=x, indices:i64=x | momentum" against the signature derived from the C++ function.
std::vector<Parameter> parse_spec(const Kernel& kernel) {
  std::vector<Parameter> parameters;
  const std::string text = kernel.spec;
  bool output = false, number = false, agrees = true;
  const auto cut = [](std::string* name, char mark) {  // what follows the mark, taken off the name
    const size_t at = std::min(name->find(mark), name->size());
    const std::string rest = name->substr(std::min(at + 1, name->size()));
    name->resize(at);
    return rest;
  };
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
      const std::string like = cut(&p.name, '=');
      if (p.name.back() == '?') {
        p.optional = true;
        p.name.pop_back();
      }
      const std::string dtype = cut(&p.name, ':');
      if (!dtype.empty()) p.dtype = dtype_named(dtype);
      for (size_t j = 0; j < parameters.size(); ++j)
        if (parameters[j].name == like) p.like = static_cast<int>(j);
      const size_t position = parameters.size();
      p.code = position < std::strlen(kernel.signature) ? kernel.signature[position] : '?';
      agrees = agrees && p.code != '?' && p.is_array() != number && like.empty() == (p.like < 0);
      parameters.push_back(p);
    }
  }
  if (!agrees || parameters.size() != std::strlen(kernel.signature) || parameters.size() > MAX_ARGS)
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

// Why an argument cannot be taken; no text where it can.
struct Problem {
  const char* text = nullptr;
  bool type = false;  // a TypeError, not a ValueError
  explicit operator bool() const { return text != nullptr; }
};

[[noreturn]] void reject(const Entry& entry, const Parameter& p, Problem problem, PyObject* object = nullptr) {
  std::string text = std::string(entry.kernel.name) + ": '" + p.name + "' " + problem.text;
  if (text.back() == ' ') text += Py_TYPE(object)->tp_name;  // "..., got "
  if (problem.type) throw py::type_error(text);
  throw std::invalid_argument(text);
}

// `real` is the dtype, float32 or float64, that the call's arrays share, or -1 before the first; `exact` refuses
// subclasses (a matrix, a masked array).
Problem read_array(const Parameter& p, PyObject* object, Array* view, int* real, bool exact) {
  auto& numpy = py::detail::npy_api::get();
  if (Py_TYPE(object) != numpy.PyArray_Type_ && !numpy.PyArray_Check_(object)) {
    if (object != Py_None) return {"must be a NumPy array, got ", true};
    if (!p.optional) return {"is required, got None"};
    std::memset(view, 0, sizeof *view);
    view->ndim = -1;
    return {};
  }
  if (exact && Py_TYPE(object) != numpy.PyArray_Type_) return {"must be a plain array, got ", true};
  const auto* array = py::detail::array_proxy(object);
  const int dtype = dtype_of(array);
  if (p.dtype == ANY_FLOAT) {
    if (dtype != int(DType::f32) && dtype != int(DType::f64)) return {"must be float32 or float64", true};
    if (*real >= 0 && dtype != *real)
      return {"and the arrays before it must be of one dtype, float32 or float64", true};
    *real = dtype;
  } else if (dtype != p.dtype) {
    return {"has the wrong dtype", true};
  }
  const int flags = array->flags;
  if (!(flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_)) return {"must be C-contiguous"};
  if (!(flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return {"must be aligned"};
  if (p.output && !(flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) return {"is read-only"};
  if (array->nd > MAX_DIMS) return {"has more than 8 dimensions"};
  view->ptr = array->data;
  view->ndim = array->nd;
  view->dtype = static_cast<DType>(dtype);
  view->size = 1;
  for (int i = 0; i < array->nd; ++i) {
    view->shape[i] = array->dimensions[i];
    view->size *= array->dimensions[i];
  }
  return {};
}

Problem read_number(const Parameter& p, PyObject* object, Arg* arg) {
  if (p.code == 'i')
    arg->integer = PyLong_AsLongLong(object);
  else
    arg->real = PyFloat_AsDouble(object);
  if ((p.code == 'i' ? arg->integer != -1 : arg->real != -1.0) || !PyErr_Occurred()) return {};
  if (!PyErr_ExceptionMatches(PyExc_Exception)) throw py::error_already_set();  // Ctrl-C, and the like
  const bool range = PyErr_ExceptionMatches(PyExc_OverflowError);
  PyErr_Clear();
  if (range) return {"is out of range"};
  return {p.code == 'i' ? "must be an int, got " : "must be a number, got ", true};
}

// The arguments of one call, as far as they were given: `made` outputs are not.
struct Call {
  explicit Call(bool exact_arrays) : exact(exact_arrays) {}
  const bool exact;
  Arg args[MAX_ARGS];
  int real = -1;
  bool wanted[MAX_ARGS] = {};      // outputs that are to be made: only their shapes are known
  std::vector<Array> listed;       // what the lists' views point to
  std::vector<py::object> tuples;  // the lists, as nobody can change them; null for what is no list

  // Which argument is unfit, or -1.
  int read(const Entry& entry, PyObject* const* objects, size_t made, Problem* problem) {
    const size_t count = entry.parameters.size();
    const auto fits = [&](Problem found) { return !(*problem = found); };
    // Numbers and lists first: converting one may run Python code (__float__, a garbage collection), which must not
    // happen once an array's pointer has been read.
    size_t end = count, arrays = 0, at = 0, list = 0;
    for (; end > 0 && !entry.parameters[end - 1].is_array(); --end)
      if (!fits(read_number(entry.parameters[end - 1], objects[end - 1 - made], &args[end - 1])))
        return static_cast<int>(end - 1);
    for (size_t i = 0; i < end; ++i) {
      if (made && entry.parameters[i].output) continue;
      if (entry.parameters[i].code == 'l') arrays += keep(objects[at]);
      ++at;
    }
    at = 0;
    listed.reserve(arrays);
    for (size_t i = 0; i < end; ++i) {
      const Parameter& p = entry.parameters[i];
      if (p.output && made) {
        args[i].array = args[p.like].array;
        wanted[i] = true;
        continue;
      }
      PyObject* object = objects[at++];
      wanted[i] = exact && p.output && p.code == 'a' && PyTuple_Check(object);
      const Problem found = wanted[i]       ? read_shape(object, &args[i].array)
                            : p.code == 'l' ? read_list(p, object, tuples[list++], &args[i].list)
                                            : read_array(p, object, &args[i].array, &real, exact);
      if (!fits(found)) return static_cast<int>(i);
      if (p.like >= 0 && !alike(args[i], args[p.like], p.code)) {
        *problem = {p.code == 'l' ? "must hold as many arrays, of the same shapes, as the list before it"
                                  : "must have the shape of the array before it"};
        return static_cast<int>(i);
      }
    }
    return -1;
  }

  // Whether the lists hold arrays that can be taken, row by row of the shapes in the first.
  bool read_lists(const Parameter& p, PyObject* const* objects, size_t count) {
    size_t arrays = 0;
    for (size_t i = 0; i < count; ++i) arrays += keep(objects[i]);
    listed.reserve(arrays);
    for (size_t i = 0; i < count; ++i)
      if (read_list(p, objects[i], tuples[i], &args[i].list) || !alike(args[i], args[0], 'l')) return false;
    return true;
  }

 private:
  // Keeps a list as a tuple; how many arrays it holds.
  size_t keep(PyObject* object) {
    tuples.emplace_back();
    if (!PyList_Check(object) && !PyTuple_Check(object)) return 0;
    tuples.back() = PyList_Check(object) ? py::reinterpret_steal<py::object>(PyList_AsTuple(object))
                                         : py::reinterpret_borrow<py::object>(object);
    if (!tuples.back()) throw py::error_already_set();
    return static_cast<size_t>(PyTuple_GET_SIZE(tuples.back().ptr()));
  }

  static Problem read_shape(PyObject* sizes, Array* view) {
    if (PyTuple_GET_SIZE(sizes) > MAX_DIMS) return {"has more than 8 dimensions"};
    view->ndim = static_cast<int32_t>(PyTuple_GET_SIZE(sizes));
    view->size = 1;
    for (int i = 0; i < view->ndim; ++i) {
      PyObject* size = PyTuple_GET_ITEM(sizes, i);
      view->shape[i] = PyLong_Check(size) ? PyLong_AsLongLong(size) : -1;  // another kind may run Python code
      if (view->shape[i] == -1 && PyErr_Occurred()) PyErr_Clear();
      if (view->shape[i] < 0 || __builtin_mul_overflow(view->size, view->shape[i], &view->size) ||
          view->size > int64_t(1) << 56)
        return {"has an impossible size"};
    }
    return {};
  }

  Problem read_list(const Parameter& p, PyObject* object, const py::object& items, Arrays* list) {
    *list = {nullptr, 0};
    if (object == Py_None && p.optional) return {};
    if (!items) return {"must be a list of NumPy arrays, got ", true};
    *list = {listed.data() + listed.size(), static_cast<int64_t>(PyTuple_GET_SIZE(items.ptr()))};
    for (Py_ssize_t i = 0; i < list->count; ++i) {
      PyObject* item = PyTuple_GET_ITEM(items.ptr(), i);
      if (item == Py_None) return {"holds None"};
      Array view;
      if (const Problem found = read_array(p, item, &view, &real, exact))
        return found.type ? Problem{"holds what is no NumPy array of the dtype of the arrays before it", true} : found;
      listed.push_back(view);
    }
    return {};
  }

  static bool same_shape(const Array& a, const Array& b) {
    if (!a || !b) return true;  // an optional one, left out
    bool same = a.ndim == b.ndim;
    for (int i = 0; same && i < a.ndim; ++i) same = a.shape[i] == b.shape[i];
    return same;
  }

  static bool alike(const Arg& a, const Arg& b, char code) {
    if (code == 'a') return same_shape(a.array, b.array);
    if (!a.list || !b.list) return true;
    bool same = a.list.count == b.list.count;
    for (int64_t i = 0; same && i < a.list.count; ++i) same = same_shape(a.list[i], b.list[i]);
    return same;
  }
};

int64_t bytes_of(const Array& a) {
  return a.size * (a.dtype == DType::f64 || a.dtype == DType::i64   ? 8
                   : a.dtype == DType::f32 || a.dtype == DType::i32 ? 4
                                                                    : 1);
}

// f(parameter's number, row in its list, array) for every array of a call that is there.
template <class F>
void each_array(const Entry& entry, const Arg* args, const F& f) {
  for (size_t i = 0; i < entry.parameters.size() && entry.parameters[i].is_array(); ++i)
    if (entry.parameters[i].code == 'l')
      for (int64_t row = 0; row < args[i].list.count; ++row) f(i, row, args[i].list[row]);
    else if (args[i].array)
      f(i, int64_t(0), args[i].array);
}

// An output may be one of the other arrays of its row as a whole (elementwise kernels allow it), never lie across one.
void check_overlap(const Entry& entry, const Arg* args) {
  each_array(entry, args, [&](size_t i, int64_t row, const Array& a) {
    if (!entry.parameters[i].output) return;
    each_array(entry, args, [&](size_t j, int64_t other, const Array& b) {
      if (i == j && row == other) return;
      if (row == other && a.ptr == b.ptr && a.dtype == b.dtype && a.size == b.size) return;
      const char *pa = static_cast<const char*>(a.ptr), *pb = static_cast<const char*>(b.ptr);
      if (pa < pb + bytes_of(b) && pb < pa + bytes_of(a))
        reject(entry, entry.parameters[i], {"overlaps another array"});
    });
  });
}

// Whether some array that is written shares memory with any other; in the time of a sort, for long lists.
bool shares_memory(const Entry& entry, const Arg* args) {
  struct Span {
    const char *begin, *end;
    bool output;
  };
  std::vector<Span> spans;
  each_array(entry, args, [&](size_t i, int64_t, const Array& a) {
    const char* begin = static_cast<const char*>(a.ptr);
    if (a.size > 0) spans.push_back({begin, begin + bytes_of(a), entry.parameters[i].output});
  });
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  const char *end = nullptr, *written = nullptr;  // the furthest end so far: of all, and of those that are written
  for (const Span& span : spans) {
    if (span.begin < (span.output ? end : written)) return true;
    end = std::max(end, span.end);
    if (span.output) written = std::max(written, span.end);
  }
  return false;
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

void free_block(PyObject* capsule) {
  block_give(PyCapsule_GetPointer(capsule, nullptr), reinterpret_cast<size_t>(PyCapsule_GetContext(capsule)));
}

// An uninitialised C-contiguous array on memory that is reused when the array dies; null with a Python error set. On
// the path of every op, so written against Python's C interface. Takes over the reference to the dtype.
PyObject* new_array(int ndim, const int64_t* shape, PyObject* descr, size_t bytes) {
  auto& numpy = py::detail::npy_api::get();
  void* memory = nullptr;
  try {
    memory = block_take(&bytes);
  } catch (const std::bad_alloc&) {
    Py_DECREF(descr);
    return PyErr_NoMemory();
  }
  PyObject* owner = PyCapsule_New(memory, nullptr, free_block);
  if (owner == nullptr) {
    block_give(memory, bytes);
    Py_DECREF(descr);
    return nullptr;
  }
  PyCapsule_SetContext(owner, reinterpret_cast<void*>(bytes));
  py::ssize_t sizes[32];
  for (int i = 0; i < ndim; ++i) sizes[i] = static_cast<py::ssize_t>(shape[i]);
  PyObject* array = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, descr, ndim, sizes, nullptr, memory,
                                                py::detail::npy_api::NPY_ARRAY_WRITEABLE_, nullptr);
  if (array == nullptr) {
    Py_DECREF(owner);
    return nullptr;
  }
  if (numpy.PyArray_SetBaseObject_(array, owner) < 0) {  // takes the reference to the owner, also when it fails
    Py_DECREF(array);
    return nullptr;
  }
  return array;
}

// NumPy's dtype object, a new reference.
PyObject* descr_of(DType dtype) {
  using api = py::detail::npy_api;
  const int numbers[] = {api::NPY_FLOAT_, api::NPY_DOUBLE_, api::NPY_INT32_,
                         api::NPY_INT64_, api::NPY_UBYTE_,  api::NPY_BOOL_};
  return api::get().PyArray_DescrFromType_(numbers[static_cast<int>(dtype)]);
}

void run(const Entry& entry, const Call& call) {
  try {
    without_gil([&] {
      FlushDenormals flush;
      entry.kernel.call[call.real == int(DType::f64)](call.args);
    });
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string(entry.kernel.name) + ": " + error.what());
  }
}

// What body(entry) returns; a C++ exception becomes Python's.
template <class F>
PyObject* guarded(PyObject* self, Py_ssize_t count, bool attempt, const F& body) {
  try {
    const Entry& entry = *static_cast<const Entry*>(PyCapsule_GetPointer(self, nullptr));
    const size_t wanted = entry.parameters.size() - (attempt ? entry.made : 0);
    if (count != static_cast<Py_ssize_t>(wanted))
      throw py::type_error(std::string(entry.kernel.name) + " takes " + std::to_string(wanted) + " arguments (" +
                           entry.kernel.spec + "), got " + std::to_string(count));
    return body(entry);
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

PyObject* call_kernel(PyObject* self, PyObject* const* objects, Py_ssize_t count) {
  return guarded(self, count, false, [&](const Entry& entry) {
    Call call(false);
    Problem problem;
    const int unfit = call.read(entry, objects, 0, &problem);
    if (unfit >= 0) reject(entry, entry.parameters[static_cast<size_t>(unfit)], problem, objects[unfit]);
    check_overlap(entry, call.args);
    run(entry, call);
    Py_RETURN_NONE;
  });
}

PyObject* attempt_kernel(PyObject* self, PyObject* const* objects, Py_ssize_t count) {
  return guarded(self, count, true, [&](const Entry& entry) -> PyObject* {
    Call call(true);
    Problem problem;
    if (call.read(entry, objects, entry.made, &problem) >= 0) Py_RETURN_NONE;
    PyObject* outputs[MAX_ARGS];  // bare, as without_gil wants it
    Py_ssize_t made = 0;
    const auto forget = [&]() -> PyObject* {
      while (made > 0) Py_DECREF(outputs[--made]);
      Py_RETURN_NONE;
    };
    bool in_place = false;
    for (size_t i = 0; i < entry.parameters.size(); ++i) {
      const Parameter& p = entry.parameters[i];
      if (!p.output) continue;
      in_place = in_place || !call.wanted[i];
      if (!call.wanted[i]) continue;
      Array& y = call.args[i].array;
      y.dtype = static_cast<DType>(p.dtype == ANY_FLOAT ? std::max(call.real, 0) : p.dtype);
      PyObject* array = new_array(y.ndim, y.shape, descr_of(y.dtype), static_cast<size_t>(bytes_of(y)));
      if (array == nullptr) {
        PyErr_Clear();
        return forget();  // out of memory: the second look says how much was asked for
      }
      outputs[made++] = array;
      y.ptr = py::detail::array_proxy(array)->data;
    }
    if (in_place && shares_memory(entry, call.args)) return forget();
    try {
      run(entry, call);
    } catch (const std::exception&) {
      forget();
      throw;
    }
    if (made == 0) Py_RETURN_TRUE;
    if (made == 1) return outputs[0];
    PyObject* tuple = PyTuple_New(made);
    if (tuple == nullptr) {
      forget();
      throw py::error_already_set();
    }
    for (Py_ssize_t i = 0; i < made; ++i) PyTuple_SET_ITEM(tuple, i, outputs[i]);
    return tuple;
  });
}

// The functions live as long as the process: Python may hold them, and PyMethodDef must not move.
void add_kernels(py::module_& module) {
  py::dict specs;
  py::module_ kernels = module.def_submodule("kernels", "the kernels of the active instruction set");
  py::module_ attempts = module.def_submodule("attempt", "the same, for arguments that need no second look");
  for (const Kernel& kernel : kernel_table()) {
    auto* entry = new Entry{kernel, parse_spec(kernel), 0, {}, {}};
    bool all = true;
    for (const Parameter& p : entry->parameters) {
      entry->made += p.output;
      all = all && (!p.output || (p.code == 'a' && p.like >= 0 && !p.optional));
    }
    if (!all) entry->made = 0;
    py::object self = py::reinterpret_steal<py::object>(PyCapsule_New(entry, nullptr, nullptr));
    const auto add = [&](py::module_& place, PyMethodDef* method, auto* function) {
      *method = {kernel.name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL,
                 kernel.spec};
      PyObject* callable = self ? PyCFunction_NewEx(method, self.ptr(), nullptr) : nullptr;
      if (callable == nullptr) throw py::error_already_set();
      place.attr(kernel.name) = py::reinterpret_steal<py::object>(callable);
    };
    add(kernels, &entry->method, call_kernel);
    add(attempts, &entry->attempt, attempt_kernel);
    specs[kernel.name] = kernel.spec;
  }
  module.attr("specs") = specs;
}

// empty(shape, dtype)
PyObject* empty(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyTuple_Check(args[0]) || !py::isinstance<py::dtype>(args[1]))
    return PyErr_Format(PyExc_TypeError, "empty takes a tuple of sizes and a dtype");
  const auto dtype = py::reinterpret_borrow<py::dtype>(args[1]);
  if (std::strchr("fiub", dtype.kind()) == nullptr)
    return PyErr_Format(PyExc_TypeError, "empty: the dtype must be a float, integer or boolean");
  const Py_ssize_t ndim = PyTuple_GET_SIZE(args[0]);
  int64_t shape[32];
  if (ndim > 32) return PyErr_Format(PyExc_ValueError, "empty: more than 32 dimensions");
  auto bytes = static_cast<size_t>(dtype.itemsize());
  for (Py_ssize_t i = 0; i < ndim; ++i) {
    shape[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(args[0], i));
    if (shape[i] == -1 && PyErr_Occurred()) return nullptr;
    if (shape[i] < 0) return PyErr_Format(PyExc_ValueError, "empty: a size is negative");
    if (shape[i] > 0 && bytes > (size_t(1) << 62) / static_cast<size_t>(shape[i])) return PyErr_NoMemory();
    bytes *= static_cast<size_t>(shape[i]);
  }
  return new_array(static_cast<int>(ndim), shape, Py_NewRef(args[1]), bytes);
}

// What quick(slow, optional) returns: floats(op, *, optional=(...), name=array, ...), the arrays as a list where
// kernels take all of them as they are, or None for one that is optional; else what slow gives for the same arguments.
PyObject* quick_floats(PyObject* self, PyObject* const* args, Py_ssize_t count, PyObject* names) {
  const Parameter any{"", 'a'};
  PyObject* optional = PyTuple_GET_ITEM(self, 1);
  const Py_ssize_t given = names ? PyTuple_GET_SIZE(names) : 0;
  Py_ssize_t skip = -1;
  for (Py_ssize_t i = 0; i < given; ++i)
    if (PyTuple_Check(args[count + i]) &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), "optional") == 0) {
      optional = args[count + i];
      skip = i;
    }
  py::object list = py::reinterpret_steal<py::object>(PyList_New(given - (skip >= 0)));
  if (!list) return nullptr;
  int real = -1;
  Array view;
  for (Py_ssize_t i = 0, at = 0; i < given; ++i) {
    if (i == skip) continue;
    PyObject* value = args[count + i];
    const int fits = value == Py_None ? PySequence_Contains(optional, PyTuple_GET_ITEM(names, i))
                                      : !read_array(any, value, &view, &real, true);
    if (fits < 0) return nullptr;
    if (!fits) return PyObject_Vectorcall(PyTuple_GET_ITEM(self, 0), args, static_cast<size_t>(count), names);
    PyList_SET_ITEM(list.ptr(), at++, Py_NewRef(value));
  }
  return list.release().ptr();
}

PyMethodDef quick_floats_method = {"floats", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(quick_floats)),
                                   METH_FASTCALL | METH_KEYWORDS, nullptr};

PyObject* quick(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2 || !PyTuple_Check(args[1]))
    return PyErr_Format(PyExc_TypeError, "quick takes a function and a tuple of names");
  PyObject* self = PyTuple_Pack(2, args[0], args[1]);
  PyObject* function = self ? PyCFunction_NewEx(&quick_floats_method, self, nullptr) : nullptr;
  Py_XDECREF(self);
  return function;
}

// alike(list, ...): whether the lists hold as many arrays, which row by row have one shape, all of one float dtype and
// writable: what an optimizer's step works on.
PyObject* alike(PyObject*, PyObject* const* args, Py_ssize_t count) {
  Parameter rows{"", 'l'};
  rows.output = true;
  Call call(true);
  if (count > MAX_ARGS || !call.read_lists(rows, args, static_cast<size_t>(count))) Py_RETURN_FALSE;
  Py_RETURN_TRUE;
}

PyMethodDef functions[] = {
    {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(empty)), METH_FASTCALL,
     "empty(shape, dtype): an uninitialised array on memory that is reused"},
    {"quick", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(quick)), METH_FASTCALL,
     "quick(floats, optional): the function floats, asked only where an array needs a second look"},
    {"alike", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(alike)), METH_FASTCALL,
     "alike(list, ...): whether the lists' arrays agree in dtype and row by row in shape, and can be written"}};

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
  for (PyMethodDef& method : functions)
    module.attr(method.ml_name) = py::reinterpret_steal<py::object>(PyCFunction_NewEx(&method, nullptr, nullptr));
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
  module.def("cpu_quota", cpu_quota, py::arg("root") = "");
  module.def("memory_status", [] {
    const MemoryStatus status = memory_status();
    return py::make_tuple(status.live, status.cached);
  });
  module.def("memory_trim", memory_trim);
  py::module_::import("atexit").attr("register")(py::cpp_function([] { without_gil(stop_threads); }));
}

"""An emulator of CUDA for the tests: the text of csrc/cuda, compiled by g++, runs under the package's own host code.

runtime.cpp lets the threads of a block take turns; device.h and ptx.h are CUDA's words for g++; build.py makes and
loads the units; fake_cupy.py stands in for CuPy; device.py is the device that fastnn.cuda sees. See CONTRIBUTING.md.
"""

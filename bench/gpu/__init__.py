"""What is timed on a GPU, and how: cases.py, measure.py. Runners: ../compare_gpu.py (one table), ../test_gpu.py
(pytest-benchmark), ../gpu_suite (tests, compute-sanitizer, this table and two trainings)."""

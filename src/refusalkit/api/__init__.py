"""The functions that users call. Each works alone and prints nothing.

`benchmark`, `resume`, `grade` and `regrade` have async twins (`benchmark_async` ...) that they
wrap; the plain ones also work inside a running event loop, such as a notebook's.
"""

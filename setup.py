"""What pyproject.toml can't say yet: the kernels are compiled with cffi."""

from setuptools import setup

setup(cffi_modules=["gptnode/model/native/build.py:ffibuilder"])

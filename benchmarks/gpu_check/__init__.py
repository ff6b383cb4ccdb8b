"""Checks that mmctx works on this machine's GPU; `tools/check_gpu.py` runs them.

* :mod:`steps`: the steps of the check, with their time limits.
* :mod:`processes`: steps side by side, each in its own process.
* :mod:`backbones`, :mod:`training`, :mod:`compiling`: the checks themselves.
* :mod:`smooth`: networks whose gradients can be compared parameter by parameter.
* :mod:`data`: the images, clips and shapes that they render.
* :mod:`sizes`: the small networks with which a CPU tries the checks.
"""

"""Whether mmctx works on this machine's GPU; `tools/check_gpu.py` is its command.

* :mod:`steps`: what is checked, and for how long at most.
* :mod:`processes`: steps side by side, each in a process of its own.
* :mod:`backbones`, :mod:`training`, :mod:`compiling`: the checks themselves.
* :mod:`smooth`: networks whose gradients can be compared parameter by parameter.
* :mod:`data`: the images, clips and shapes that they render.
* :mod:`sizes`: the small networks with which a CPU tries the checks.
"""

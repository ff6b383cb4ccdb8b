"""Packaging of mmctx: ranges here, the exact versions that are tested in constraints.txt."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

# mmcv is required too but not named: the distributions `mmcv` and `mmcv-lite` hold the same Python
# package, so asking pip for one overwrites a user's own build of the other.
DETECTION = ['mmdet>=3.1.0,<3.4.0']
VIDEO = ['mmaction2>=1.2.0,<1.3.0', 'av>=12']
LITE = ['mmcv-lite>=2.0.1,<2.2.0']
EXPORT = ['onnx>=1.17', 'onnxruntime>=1.20', 'onnxscript>=0.3']
SEE = ['captum>=0.7', 'scikit-learn>=1.4']
APP = ['gradio>=6.0']
DEV = [
    *EXPORT, *SEE, 'pytest>=8', 'pytest-xdist>=3.5', 'ruff>=0.6', 'mypy>=1.15', 'timm>=1.0',
]  # fmt: skip
# The versions of Sphinx and MyST that agree with the rest need Python 3.11.
DOCS = [
    f'{name} ; python_version >= "3.11"'
    for name in ('sphinx>=8', 'myst-parser>=4', 'furo>=2024.8', 'sphinx-copybutton>=0.5')
]

CLASSIFIERS = [
    'Development Status :: 4 - Beta',
    'Intended Audience :: Science/Research',
    'Operating System :: OS Independent',
    'Programming Language :: Python :: 3.10',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Topic :: Scientific/Engineering :: Image Recognition',
    'Typing :: Typed',
]


class BuildPyWithConfigs(build_py):
    """Put configs, tools and the index of models where mmengine and mim look, `mmctx/.mim/`."""

    def run(self):
        super().run()
        editable = getattr(self, 'editable_mode', False)
        package = ROOT if editable else Path(self.build_lib)
        for name in ('configs', 'tools', 'model-index.yml'):
            target = package / 'mmctx' / '.mim' / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            if editable:
                target.symlink_to(os.path.relpath(ROOT / name, target.parent))
            elif (ROOT / name).is_file():
                shutil.copy(ROOT / name, target)
            else:
                ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
                shutil.copytree(ROOT / name, target, ignore=ignored)


version = {}
exec((ROOT / 'mmctx' / 'version.py').read_text(), version)

setup(
    name='mmctx',
    version=version['__version__'],
    description='Contextual Convolutional Networks for mmpretrain, mmdet and mmaction2',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    author='mmctx contributors',
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    project_urls={'Paper': 'https://openreview.net/forum?id=PldynS56bN'},
    classifiers=CLASSIFIERS,
    packages=find_packages(include=['mmctx', 'mmctx.*']),
    package_data={'mmctx': ['py.typed']},
    entry_points={'console_scripts': ['mmctx = mmctx.__main__:main']},
    cmdclass={'build_py': BuildPyWithConfigs},
    python_requires='>=3.10',
    install_requires=[
        'numpy',
        # The first with Triton 3.4, whose settings the kernels are launched by.
        'torch>=2.8',
        'torchvision>=0.23',
        'mmengine>=0.10.0,<1.0.0',
        'mmpretrain>=1.0.0,<1.3.0',
        # mmengine finds `mmdet::` configs through pkg_resources, which later versions dropped.
        'setuptools<82',
    ],
    extras_require={
        'det': DETECTION,
        'video': VIDEO,
        'lite': LITE,
        'all': DETECTION + VIDEO + LITE,
        'export': EXPORT,
        'see': SEE,
        'app': SEE + APP,
        'dev': DEV,
        'docs': DOCS,
    },
)

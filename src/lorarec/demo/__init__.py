"""The library's two papers on the bundled sample, offline and in minutes: mixed adapters, and personal ones."""

from lorarec.demo.mixing import FULL, QUICK, DemoSize, run_demo
from lorarec.demo.personal import run_personal_demo

__all__ = ["FULL", "QUICK", "DemoSize", "run_demo", "run_personal_demo"]

"""Every module can be imported where Python lacks the modules that only POSIX systems have."""

import subprocess
import sys
from pathlib import Path

import lorarec

#: Third-party modules of the optional dependencies.
EXTRAS = ("bitsandbytes", "faiss", "fastapi", "prometheus_client", "psycopg", "ray", "sqlalchemy", "uvicorn", "vllm")

CODE = f"""
import builtins, importlib, pkgutil
import lorarec

real = builtins.__import__

def without_posix(name, globals=None, locals=None, fromlist=(), level=0):
    if name in ("fcntl", "grp", "pwd", "resource", "termios") and globals["__name__"].startswith("lorarec"):
        raise ModuleNotFoundError(f"{{globals['__name__']}} imports {{name}}", name=name)
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = without_posix
for module in pkgutil.walk_packages(lorarec.__path__, "lorarec."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] not in {EXTRAS}:
                raise
        print(module.name)
"""


def test_imports_without_posix_modules() -> None:
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    source = Path(lorarec.__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=source.parent)
    assert done.returncode == 0, done.stderr
    modules = [path for path in source.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    assert len(done.stdout.splitlines()) >= len(modules)

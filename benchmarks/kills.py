"""Kill every verb that writes at random moments, with and without --overwrite, and see that nothing is lost.

    python benchmarks/kills.py --out /tmp/kills              # 20 kills of each verb in each way
    python benchmarks/kills.py --out /tmp/kills --quick      # a few kills of the quick verbs, as tests/test_kills.py
    python benchmarks/kills.py --out /tmp/kills --signal INT # Ctrl+C in place of kills; TERM for SIGTERM

This process imports the library once and forks a child for every run, so that a run begins at once; what is imported
is frozen, so that the child's garbage collector does not copy it all. Half of the kills
are at a random moment of the run's time, half before a random one of its calls to the file system, where most of what
can go wrong is. After each kill the output must be what it was before, or be whole; then the same command (with
--resume, where the verb has it and there is something to resume) must give what an uninterrupted run gives, and leave
no temporary file. After Ctrl+C and SIGTERM none may be left even before that. Where a verb fills a folder step by step
(recommend, experiment), only the second is asked.
"""

import argparse
import gc
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["POLARS_MAX_THREADS"] = "1"

import polars as pl

import lorarec.cli.data
import lorarec.experiments.table_kinds
import lorarec.personal.user_router_training
import lorarec.training.run
from lorarec.cli.demo import load_example
from lorarec.cli.entry import main as command_line
from lorarec.data import Dataset
from lorarec.data.sample import load_sample
from lorarec.io.locks import ASIDE, TEMPORARY

MOLOREC: Any = load_example("molorec_demo")
RECLORA: Any = load_example("reclora_demo")
LOADED = (lorarec.cli.data, MOLOREC, lorarec.experiments.table_kinds, lorarec.personal.user_router_training)
#: What differs from run to run.
TIMES = ("hours", "seconds", "seconds_per_user", "peak_mib", "fit_seconds")
WRITES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "ctypes.dlsym")
TRAINING = (
    "--samples 16 --epochs 1 --batch-size 4 --negatives 4 --r 2 --eval-users 4 --eval-steps 2 --learning-rate 1e-2"
)
PERSONAL = (
    "--samples 16 --epochs 1 --batch-size 8 --num-meta-loras 2 --r 2 --max-history 2 --ctr-model deepfm "
    "--positive-from 3"
)
CATALOGUE = "--items items.csv --rating rating"
CHOICE = "--ctr-model titles --cases 12 --epochs 1 --limit 4"
COLOURS, THINGS = ("red", "green", "blue", "black", "white"), ("lamp", "chair", "desk", "game")
RECIPE = """dataset: shop
settings: [warm]
seeds: [1, 2]
rows:
  bpr-mf: {options: {epochs: 1}}
"""
#: What some verbs read, and how it is made.
READ = {
    "general": f"train shop --out general {TRAINING}",
    "specific": f"train shop --out specific --seed 1 {TRAINING}",
    "index": "index shop --epochs 0 --out index",
    "personal": f"personal train shop --out personal {PERSONAL}",
}


@dataclass(frozen=True)
class Verb:
    """A verb and what it writes.

    Attributes:
        words: of the command line; OUT stands for the output.
        out: the output.
        other: words for an earlier output that differs.
        overwrites: whether it takes --overwrite.
        resumes: whether it takes --resume.
        in_steps: whether an unfinished output stands under its name.
        quick: whether it takes but a second.
        ignored: parts of paths that differ from run to run.
    """

    words: str
    out: str = "out"
    other: str = "--seed 7"
    overwrites: bool = True
    resumes: bool = False
    in_steps: bool = False
    quick: bool = False
    ignored: tuple[str, ...] = field(default=("tensorboard", ".md"))


VERBS = {
    "data import table": Verb(f"data import table log.csv {CATALOGUE} --out OUT", other="--name x", quick=True),
    "data import amazon": Verb("data import amazon reviews.json --meta meta.json --out OUT", other="--name x"),
    "data import movielens": Verb("data import movielens ml.zip --out OUT", other="--name x"),
    "data import sample": Verb("data import sample comedy --out OUT", other=""),
    "data split": Verb("data split shop --negatives 4", out="shop/split", quick=True),
    "data describe": Verb("data describe shop --plot OUT", out="plot.png", overwrites=False, quick=True),
    "train": Verb(f"train shop --out OUT {TRAINING}", resumes=True),
    "mix fixed": Verb("mix general specific --method fixed --weights 0.3,0.7 --out OUT", other="--rank 1"),
    "mix entropy": Verb("mix general specific --dataset shop --prompts 4 --out OUT"),
    "mix grid": Verb("mix general specific --method grid --dataset shop --cases 4 --out OUT"),
    "evaluate": Verb("evaluate shop --adapter general --setting warm --limit 4 --out OUT"),
    "evaluate-clicks": Verb("evaluate-clicks personal --out OUT"),
    "fuse": Verb("fuse shop --recommender ease --recommender tf-idf --set ease.penalty=1 --out OUT"),
    "export": Verb("export general --merged OUT", other="--dtype bfloat16"),
    "update": Verb("update shop --events events.csv --out OUT", other="--keep-untitled", quick=True),
    "index": Verb("index shop --epochs 1 --hidden-size 8 --out OUT", quick=True),
    "recommend": Verb(
        "recommend shop --all --adapter general --index index --part-size 8 --pool 5 --top 5 --out OUT",
        other="--top 2",
        in_steps=True,
    ),
    "experiment": Verb("experiment recipe.yaml --out OUT", overwrites=False, in_steps=True),
    "personal train": Verb(f"personal train shop --out OUT {PERSONAL}", resumes=True),
    "personal train-router": Verb(f"personal train-router shop general specific {CHOICE} --out OUT"),
    "personal export": Verb("personal export personal --user u01 --out OUT", other=""),
    "demo": Verb("demo --quick --out OUT"),
    "demo personal": Verb("demo personal --quick --out OUT"),
}


def forked(
    folder: Path,
    words: Sequence[str],
    stop: Callable[[int], object] | None = None,
    at: int = 0,
    number: signal.Signals = signal.SIGKILL,
) -> tuple[int, int]:
    """Run a command line in a child process; its exit code, and its calls to the file system.

    Args:
        stop: is given the child's process id and returns when it likes; the child may be dead then.
        at: send the signal before so many calls to the file system; 0 for never.
        number: the signal.
    """
    counted = folder / "events"
    child = os.fork()
    if not child:
        os.chdir(folder)
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                count += 1
                if count == at:
                    os.kill(os.getpid(), number)

        sys.addaudithook(hook)
        sys.argv = ["lorarec", *words]
        code = 70
        try:
            command_line()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException as error:
            print("Traceback:", repr(error), file=sys.stderr)
        sys.stdout.flush()
        seen = count
        counted.write_text(str(seen))
        os._exit(code)
    if stop is not None:
        stop(child)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, int(counted.read_text()) if code >= 0 else 0


def snapshot(out: Path, ignored: tuple[str, ...]) -> dict[str, str] | None:
    """Relative path -> hash of everything that must be the same; None where nothing is."""
    if not out.exists():
        return None
    found = {}
    for path in [out] if out.is_file() else sorted(out.rglob("*")):
        if path.is_dir() or any(part in str(path.relative_to(out.parent)) for part in ignored):
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(_without_times(json.loads(content))).encode()
        found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()[:12]
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(".*") if path.suffix in (TEMPORARY, ASIDE)]


class Trial:
    """One verb in one way."""

    def __init__(self, name: str, base: Path, work: Path, overwrite: bool, number: signal.Signals) -> None:
        self.number = number
        self.verb, self.name = VERBS[name], name
        self.base, self.work, self.overwrite = base, work, overwrite
        words = [self.verb.out if word == "OUT" else word for word in self.verb.words.split()]
        self.words = [*words, "--overwrite"] if overwrite else words
        self.start = work / "start"
        shutil.copytree(base, self.start, symlinks=True)
        self.old = None
        if overwrite:
            self._must(forked(self.start, [*words, *self.verb.other.split(), "--overwrite"])[0], self.start)
            self.old = snapshot(self.start / self.verb.out, self.verb.ignored)
        elif self.verb.out == "shop/split":
            shutil.rmtree(self.start / self.verb.out)
        whole = self._fresh()
        begin = time.monotonic()
        code, self.events = forked(whole, self.words)
        self.seconds = time.monotonic() - begin
        self._must(code, whole)
        self.wanted = snapshot(whole / self.verb.out, self.verb.ignored)

    def _fresh(self) -> Path:
        folder = self.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.start, folder, symlinks=True))

    def _must(self, code: int, folder: Path) -> None:
        if code:
            raise SystemExit(f"{self.name}: exit code {code}\n{(folder / 'log.txt').read_text()[-2000:]}")

    def kill(self, rng: random.Random, by_event: bool) -> tuple[bool, str | None]:
        """Whether the run was killed before its end, and what went wrong, if anything did."""
        folder, verb = self._fresh(), self.verb
        out = folder / verb.out
        if by_event:
            code, _ = forked(folder, self.words, at=rng.randint(1, self.events), number=self.number)
        else:
            wait = rng.uniform(0, self.seconds)

            def stop(child: int) -> None:
                time.sleep(wait)
                os.kill(child, self.number)

            code, _ = forked(folder, self.words, stop)
        stopped = code < 0 or code == 130
        if self.number != signal.SIGKILL and (left := leftovers(folder)):
            return stopped, f"left {left} at once"
        if code not in (0, 130, -self.number):
            return stopped, f"ended with {code}: {(folder / 'log.txt').read_text()[-600:]}"
        found = snapshot(out, verb.ignored) if not verb.in_steps or self.overwrite else None
        if found not in (self.old, self.wanted, None if not self.overwrite else self.old):
            return stopped, f"half-written: {found} is neither {self.old} nor {self.wanted}"
        again = list(self.words)
        if (
            verb.resumes
            and not self.overwrite
            and out.with_name(out.name + ".checkpoints").exists()
            and not out.exists()
        ):
            again.append("--resume")
        log = folder / "log.txt"
        log.write_text("")
        code_again, _ = forked(folder, again)
        refused = code_again == 2 and "exists already" in log.read_text().replace("\n", " ")
        if code_again and not (refused and found == self.wanted):
            return stopped, f"the rerun ended with {code_again}: {log.read_text()[-600:]}"
        if snapshot(out, verb.ignored) != self.wanted:
            return stopped, f"the rerun gave {snapshot(out, verb.ignored)}, not {self.wanted}"
        if not refused and (left := leftovers(folder)):
            return stopped, f"left {left}"
        return stopped, None


def load() -> None:
    """Load what any command line loads, keep the garbage collector from it, and cut the work of the longest verbs."""
    MOLOREC.load_sample = _few_users
    MOLOREC.QUICK = MOLOREC.DemoSize(cases=8, users=2, prompts=2)
    RECLORA.QUICK = replace(RECLORA.QUICK, samples=8, max_title_tokens=8)
    RECLORA.QUICK_ONE_IN = 200
    sys.argv = ["lorarec", "data", "split", "--help"]
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        command_line()
    gc.collect()
    gc.freeze()


def _few_users(domain: str) -> Dataset:
    dataset = load_sample(domain)
    users = dataset.interactions["user_id"].unique().sort().head(40).to_list()
    return dataset.subset(dataset.interactions.filter(pl.col("user_id").is_in(users)), filter_note="40 users")


def prepare(base: Path, names: Sequence[str]) -> None:
    """A small log with ratings in three forms, and what the verbs read."""
    rng = random.Random(0)
    base.mkdir(parents=True)
    things = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    rows = [
        (f"u{u:02}", i, rng.randint(1, 5), 10**9 + 86400 * n + u)
        for u in range(24)
        for n, i in enumerate(rng.sample(range(20), 10))
    ]
    (base / "log.csv").write_text(
        "user_id,item_id,rating,timestamp\n" + "".join(f"{u},i{i:02},{r},{t}\n" for u, i, r, t in rows)
    )
    (base / "items.csv").write_text("item_id,title\n" + "".join(f"i{n:02},{title}\n" for n, title in enumerate(things)))
    reviews = [{"reviewerID": u, "asin": f"i{i}", "overall": r, "unixReviewTime": t} for u, i, r, t in rows]
    (base / "reviews.json").write_text("".join(json.dumps(row) + "\n" for row in reviews))
    (base / "meta.json").write_text(
        "".join(json.dumps({"asin": f"i{n}", "title": title}) + "\n" for n, title in enumerate(things))
    )
    folder = base / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in rows)
    )
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n" + "".join(f"{n},{title},Drama\n" for n, title in enumerate(things))
    )
    shutil.make_archive(str(base / "ml"), "zip", folder)
    (base / "recipe.yaml").write_text(RECIPE)
    new = [f"u{u:02},i{u % 20:02},5,{10**9 + 86400 * 20 + u}\n" for u in range(6)]
    (base / "events.csv").write_text("user_id,item_id,rating,timestamp\n" + "".join(new))
    read = {word for name in names for word in VERBS[name].words.split()[1:]}
    for line in (
        f"data import table log.csv {CATALOGUE} --out shop",
        "data split shop --negatives 4",
        *(line for folder, line in READ.items() if folder in read),
    ):
        if forked(base, line.split())[0]:
            raise SystemExit(f"{line}\n{(base / 'log.txt').read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--verbs", help="some of the verbs, with commas between them")
    parser.add_argument("--quick", action="store_true", help="the quick verbs alone, three kills each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="KILL", choices=["KILL", "INT", "TERM"])
    given = parser.parse_args()
    names = (
        given.verbs.split(",")
        if given.verbs
        else [name for name, verb in VERBS.items() if verb.quick or not given.quick]
    )
    load()
    prepare(given.out / "base", names)
    failures = 0
    print(
        f"{'verb':20} {'overwrite':9} {'seconds':>7} {'events':>6} {'kills':>5} {'before the end':>14} faults",
        flush=True,
    )
    for name in names:
        for overwrite in [False, True] if VERBS[name].overwrites else [False]:
            work = given.out / f"{name}-{overwrite}".replace(" ", "-")
            trial, rng = (
                Trial(name, given.out / "base", work, overwrite, signal.Signals[f"SIG{given.signal}"]),
                random.Random(f"{given.seed} {name} {overwrite}"),
            )
            kills = 3 if given.quick else given.kills
            killed, faults = 0, []
            for n in range(kills):
                early, why = trial.kill(rng, by_event=n % 2 == 0 or given.quick)
                killed += early
                print(f"{name}: {n + 1} of {kills}, {killed} before the end", file=sys.stderr, flush=True)
                if why:
                    faults.append(why)
                    print("   ", why[:1500], flush=True)
            failures += len(faults)
            print(
                f"{name:20} {overwrite!s:9} {trial.seconds:7.1f} {trial.events:6} {kills:5} {killed:14} {len(faults)}",
                flush=True,
            )
            shutil.rmtree(work)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

"""``livestem``: one line on stderr for anything a user can cause; exit 0 done, 1 failed, 2 wrong usage, 130 stopped."""

from __future__ import annotations

import sys
import warnings
from typing import NoReturn

import typer

from livestem.cli import ending, logs
from livestem.cli import keys as keys_command
from livestem.cli import store as store_command
from livestem.cli import weights as weights_command
from livestem.cli.batch import batch
from livestem.cli.demo import demo
from livestem.cli.doctor import doctor
from livestem.cli.export import export
from livestem.cli.listen import listen
from livestem.cli.replay import replay
from livestem.cli.report import report
from livestem.cli.request import request
from livestem.cli.score import score
from livestem.cli.serve import serve
from livestem.cli.simulate import simulate
from livestem.cli.watch import watch
from livestem.domain.errors import LivestemError
from livestem.domain.names import one_line

app = typer.Typer(
    name="livestem",
    help="Live segmentation of STEM scans: HAADF and EDS in, label maps and descriptors out, while the beam scans.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, serve, simulate, replay, batch, watch, listen, request, score, report, export, doctor):
    app.command()(command)
app.add_typer(keys_command.app, name="keys")
app.add_typer(store_command.app, name="store")
app.add_typer(weights_command.app, name="weights")


@app.callback()
def _options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens, to stderr."),
) -> None:
    logs.configure(verbose)


def main() -> NoReturn:
    """Run the command line."""
    warnings.filterwarnings("ignore", module=r"(hyperspy|exspy|rsciio)\b")  # theirs to mend, not the user's to read
    ending.interrupt_on_signals()
    try:
        code = app(standalone_mode=False)
    except LivestemError as e:
        sys.exit(_fail(str(e), e.exit_code))
    except _ClickError as e:
        sys.exit(_usage(e))
    except ModuleNotFoundError as e:
        sys.exit(_missing(e))
    except (ending.StoppedError, KeyboardInterrupt, typer.Abort) as e:
        sys.exit(_fail(str(e) or "stopped", ending.INTERRUPTED))
    if code == ending.INTERRUPTED:  # what some versions of the option parser make of a KeyboardInterrupt
        sys.exit(_fail("stopped", code))
    sys.exit(code if isinstance(code, int) else 0)


# The base of every error that the option parser raises, wherever this typer keeps its click.
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


def _usage(error: Exception) -> int:
    """Tell what is wrong with the call: one line, or the help where nothing was asked."""
    text = error.format_message()  # type: ignore[attr-defined]
    if type(error).__name__ == "NoArgsIsHelpError":
        print(text, file=sys.stderr)
        return 2
    context = getattr(error, "ctx", None)
    where = f"; see {context.command_path} --help" if context is not None else ""
    return _fail(f"{text.rstrip('.')}{where}", 2)


# Third-party package -> the extra that brings it.
_EXTRAS = {"torch": "vgg16", "torchvision": "vgg16", "onnx": "vgg16"}


def _missing(error: ModuleNotFoundError) -> int:
    name = (error.name or "").partition(".")[0]
    if name in ("", "livestem"):
        raise error
    extra = _EXTRAS.get(name, "service")
    return _fail(f'{name} is not installed; run: pip install "livestem[{extra}]"', 2)


def _fail(text: str, code: int) -> int:
    print(f"livestem: {one_line(' '.join(text.split()))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

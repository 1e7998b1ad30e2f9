"""The command `lps-search`: a table of verbs over library calls, one file a group of verbs.

Results go to stdout, progress to stderr. A user's mistake is one line and exit code 2; a search that cannot go on is
one line and exit code 1. Heavy imports sit inside the verbs, so that --help answers at once.
"""

from __future__ import annotations

import sys

import typer
from typer.main import get_command

from search.cli import (
    ablate_verbs,
    compare_verbs,
    data_verbs,
    export_verbs,
    family_verbs,
    measure_verbs,
    network_verbs,
    noise_verbs,
    predict_verbs,
    predictor_verbs,
    report_verbs,
    search_verbs,
    study_verbs,
    table_verbs,
    train_verbs,
    watch_verbs,
)

app = typer.Typer(
    name="lps-search",
    help="Choose the fastest accurate segmentation network for a device: measure, train and expand, step by step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
search_verbs.register(app)
watch_verbs.register(app)
family_verbs.register(app)
report_verbs.register(app)
measure_verbs.register(app)
network_verbs.register(app)
compare_verbs.register(app)
table_verbs.register(app)
predictor_verbs.register(app)
noise_verbs.register(app)
train_verbs.register(app)
predict_verbs.register(app)
export_verbs.register(app)
data_verbs.register(app)
study_verbs.register(app)
ablate_verbs.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    from search.cli.console import complain
    from search.cli.failures import USER_ERRORS, is_out_of_memory, is_usage_error

    try:
        result = get_command(app).main(arguments, prog_name="lps-search", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except USER_ERRORS as error:
        return complain(str(error), 2)
    except KeyboardInterrupt:
        return complain("stopped", 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output has gone; there is nobody to tell
        return 0
    except Exception as error:
        if is_out_of_memory(error):
            return complain(f"memory ran out: {error}; a smaller input, crop or batch needs less", 2)
        message = is_usage_error(error)
        if message is None:
            raise
        return complain(message, 2)

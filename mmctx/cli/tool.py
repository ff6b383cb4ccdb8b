"""How a command line tool runs, and how it reports errors that the user can correct."""

import os
import sys
import time
import warnings

from mmctx.errors import recognise

EXIT_STATUS = 2
LAUNCHER_LOCAL_RANKS = ('LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK')
SECONDS_FOR_THE_FIRST_RANK = 5


def local_rank():
    """Number of this process on its machine, as set by the launcher; 0 without a launcher."""
    return next((int(os.environ[name]) for name in LAUNCHER_LOCAL_RANKS if name in os.environ), 0)


def run_tool(main):
    """Run a command line tool; a :class:`UserError` ends it with one line on stderr and status 2.

    An error of another package that `recognise` knows does the same. Every other exception is a
    bug: it keeps its traceback, and the status is 1. If all processes on a machine have the same
    error, only the first one reports it.

    Args:
        main (callable): The tool, called without arguments.
    """
    # mmengine imports pkg_resources wherever a config inherits from a package's config.
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    try:
        main()
    except Exception as error:
        refusal = recognise(error)
        if refusal is None:
            raise
        if local_rank() == 0 or refusal.one_rank:
            print('error:', ' '.join(str(refusal).split()), file=sys.stderr, flush=True)
        else:
            # A launcher ends all processes when the first one exits, so give the reporting process
            # time.
            time.sleep(SECONDS_FOR_THE_FIRST_RANK)
        sys.exit(EXIT_STATUS)

"""How a command line tool runs and reports what the user can mend."""

import os
import sys
import time
import warnings

from mmctx.errors import recognise

EXIT_STATUS = 2
LAUNCHER_LOCAL_RANKS = ('LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK')
SECONDS_FOR_THE_FIRST_RANK = 5


def local_rank():
    """Number of this process on its machine, as its launcher states it; 0 without a launcher."""
    return next((int(os.environ[name]) for name in LAUNCHER_LOCAL_RANKS if name in os.environ), 0)


def run_tool(main):
    """Run a command line tool; a :class:`UserError` ends it with one line on stderr and status 2.

    So does an error of another package that `recognise` knows. Every other exception is a fault: it
    keeps its traceback, and the status is 1. Of the processes on one machine only the first reports
    an error that they all share.

    Args:
        main (callable): The tool, called without arguments.
    """
    # mmengine imports it wherever a config inherits from a package's.
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
            # A launcher ends all processes when the first exits, so leave the reporter time.
            time.sleep(SECONDS_FOR_THE_FIRST_RANK)
        sys.exit(EXIT_STATUS)

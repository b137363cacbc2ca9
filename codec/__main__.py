"""`python -m codec` is the `codec` command."""

import sys

from .cli import main

sys.exit(main())

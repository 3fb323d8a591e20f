"""`python -m infermax_gym` is `infermax`."""

import sys

from infermax_gym.cli import main

sys.exit(main())

"""``python -m alpha_umi.cli``."""

from alpha_umi.cli import main

if __name__ == "__main__":
    main()

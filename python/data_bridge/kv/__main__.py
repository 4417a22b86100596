"""`python -m data_bridge.kv serve|backup|log|health|config|export|import|cli|check`: the script `data-bridge-kv`."""

from __future__ import annotations

import sys

from data_bridge._native import run_server

MORE = """
Also, in the Python package:
  cli     Call one method of a client and print what it answers
  check   Without a directory: check that a server works
  import  From redis://...: copy a Redis database
"""


def main(args: list[str] | None = None) -> int:
    """Runs one action; what is not named here is the server's own, see `--help`: `check DIR` too."""
    args = sys.argv[1:] if args is None else args
    asks = bool({"-h", "--help"} & set(args))
    if args[:1] == ["cli"]:
        from data_bridge.kv._console import console

        return console(args[1:])
    if args[:1] == ["check"] and not asks and all(arg.startswith("-") for arg in args[1:2]):
        from data_bridge.kv._console import check

        return check(args[1:])
    if args[:1] == ["import"] and any("://" in arg and not arg.startswith("kv") for arg in args):
        from data_bridge.kv._migration import migrate

        return migrate(args[1:])
    code = run_server(["data-bridge-kv", *args])
    if args[:1] == ["import"] and asks:
        from data_bridge.kv._migration import arguments

        arguments().print_help()
    if args[:1] == ["check"] and asks:
        from data_bridge.kv._console import check_arguments

        check_arguments().print_help()
    if args in (["-h"], ["--help"], ["help"]):
        sys.stdout.write(MORE)
    return code


if __name__ == "__main__":
    sys.exit(main())

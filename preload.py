"""Options for the command line of a WebUI: what nobody may change from within its page."""


def preload(parser):
    parser.add_argument(
        "--promptglass-root",
        action="append",
        metavar="DIR",
        help="a folder in which promptglass may read pictures and write sidecars, besides the WebUI's own "
        "outputs; may be repeated",
    )
    parser.add_argument(
        "--promptglass-endpoints",
        metavar="NAME,…",
        help="the only language models that promptglass may ask (default: all profiles of its settings)",
    )

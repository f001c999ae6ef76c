"""WebUI's door. Executed at every start and at every "Reload UI"; all the rest is imported once."""

import html
import traceback

from modules import script_callbacks


def tabs():
    if failure is not None:
        return failed_tab(failure)
    try:
        return door.tabs()
    except Exception as error:  # whatever it is: without the tab its user would be left without a word
        traceback.print_exc()
        return failed_tab(error)


def failed_tab(error):
    import gradio as gr

    reason = html.escape(f"{type(error).__name__}: {error}")
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML(
            f"<p><b>promptglass cannot be shown.</b> {reason}</p><p>The console says more. After an update, "
            "start the whole WebUI again; if that does not help, run install.py of this extension.</p>"
        )
    return [(blocks, "promptglass", "promptglass")]


try:
    from promptglass.webui import door

    door.register()
    failure = None
except Exception as error:
    traceback.print_exc()
    failure = error  # the name of an except clause is gone after it

script_callbacks.on_ui_tabs(tabs)

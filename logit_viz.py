"""Which actions a policy chooses, and where it is uncertain: marimo run logit_viz.py"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="Actions of a policy",
    css_file="mop/apps/page.css",
    html_head_file="mop/apps/head.html",
)

with app.setup:
    from mop.apps import elements, run_figures
    from mop.apps.flags import RunSettings
    from routing_viz import app as page_of_a_run


@app.cell
def _():
    args = elements.start(
        "logit_viz.py",
        RunSettings,
        "Which actions a policy chooses, and where it is uncertain.",
        "plots/<run key>/",
        lambda args: run_figures.save_as_script("logit_viz.py", args, run_figures.action_figures),
    )
    return (args,)


@app.cell
async def _(args):
    given = {"args": args, "view": elements.open_view(), "first_tab": run_figures.ACTIONS}
    shown = await page_of_a_run.embed(defs=given)
    shown.output
    return


if __name__ == "__main__":
    app.run()

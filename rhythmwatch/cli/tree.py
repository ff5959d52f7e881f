"""The command tree."""

from __future__ import annotations

import typer

from rhythmwatch.cli import backup, bench, devices, files, fleet, offline, plan, rights, serve, sources, standby

app = typer.Typer(
    help="Real-time streaming ECG monitoring. Not a medical device: not for diagnosis or treatment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

app.command()(serve.demo)
app.command()(serve.run)
app.command()(serve.ingest)
app.command()(serve.worker)
app.command(hidden=True)(standby.spare)
app.command()(serve.historian)
app.command()(serve.recorder)
app.command()(serve.evidence)
app.command()(serve.notifier)
app.command()(serve.web)
app.command()(rights.keeper)
app.command()(rights.adt)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(sources.replay)
app.command()(sources.simulate)
app.command()(sources.publish)
app.add_typer(sources.gateway, name="gateway")
app.command()(offline.analyze)
app.command()(files.classify)
app.command()(files.images)
app.command()(offline.train)
app.command()(offline.evaluate)
app.command()(offline.warm)
app.command(name="export-training")(rights.export_training)
app.add_typer(offline.data, name="data")
app.add_typer(devices.devices, name="devices")
app.add_typer(devices.certs, name="certs")
app.add_typer(bench.bench, name="bench")
app.command()(plan.plan)
app.add_typer(fleet.fleet, name="fleet")

"""A job on the page: the button that starts it, the one that stops it, and the line that says how it fares.

The work is the service's, on a thread of its own. A click starts it and keeps its id; what follows it comes
late and leaves early as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import PromptglassError
from . import cards
from .gradio_versions import Updates, make, on, update

if TYPE_CHECKING:
    from ..jobs import Event, Job
    from ..service import Service


class Run:
    """Two buttons, a line beneath them, and the id of the job, "" where none was started."""

    def __init__(self, service: Service, name: str, start: str) -> None:
        self._service = service
        with make("Row", elem_id=f"promptglass_{name}_buttons"):
            self.start = make(
                "Button", value=start, variant="primary", min_width=80, elem_id=f"promptglass_{name}_start"
            )
            self.stop = make(
                "Button", value="Stop", interactive=False, min_width=80, elem_id=f"promptglass_{name}_stop"
            )
        self.status = make("HTML", value="", elem_id=f"promptglass_{name}_status")
        self.job_id = make("State", value="")

    @property
    def parts(self) -> list[Any]:
        return [self.start, self.stop, self.status, self.job_id]

    def wire(
        self,
        begin: Callable[..., Updates],
        inputs: Sequence[Any],
        follow: Callable[..., Iterator[Updates]],
        outputs: Sequence[Any],
        follow_inputs: Sequence[Any] = (),
    ) -> Any:
        """The event of its end. begin: gets the inputs, starts the job; follow: its id and follow_inputs."""
        every = [*dict.fromkeys([*self.parts, *outputs])]
        started = on(self.start.click, begin, inputs, every)
        followed = on(started.then, follow, [self.job_id, *follow_inputs], every)
        # Not behind what is queued: whoever wants to stop does not wait.
        on(self.stop.click, self.ask_to_stop, [self.job_id], [self.status], is_queued=False)
        return followed

    def begin(self, start: Callable[[], Job]) -> Updates:
        """The job, started; or why it is not."""
        try:
            job = start()
        except PromptglassError as error:
            return self.refused(str(error))
        return self.running(job)

    def running(self, job: Job) -> Updates:
        return {
            self.start: update(interactive=False),
            self.stop: update(interactive=True),
            self.status: update(value=_line(job)),
            self.job_id: job.id,
        }

    def refused(self, why: str) -> Updates:
        return {self.status: update(value=cards.failure(why)), self.job_id: ""}

    def find(self, job_id: str) -> Job | None:
        return self._service.jobs.find(job_id) if isinstance(job_id, str) else None

    def changes(self, job: Job) -> Iterator[tuple[Sequence[Event], Updates]]:
        """New events, and what the line says of the job, whenever there is something new."""
        said = ""
        for events in job.follow():
            line = _line(job)
            if events or line != said:
                said = line
                yield events, {self.status: update(value=line)}

    def ended(self, job: Job, result: str = "") -> Updates:
        """result: what the line says where all went well."""
        said = {"failed": cards.failure(job.error or "it failed"), "stopped": cards.note("Stopped.")}
        return {**self.idle(), self.status: update(value=said.get(job.state, result))}

    def idle(self) -> Updates:
        return {self.start: update(interactive=True), self.stop: update(interactive=False)}

    def ask_to_stop(self, job_id: str) -> Updates:
        job = self.find(job_id)
        if job is None or job.state != "running":
            return {self.status: update()}
        job.stop()
        return {self.status: update(value=cards.progress("stopping"))}


def _line(job: Job) -> str:
    if job.state != "running":
        return ""
    if job.is_stopping:
        return cards.progress("stopping")
    return cards.progress(*job.now) if job.now else cards.progress("working")

"""What a worker of a fine-tuning does: its training, with the images that it loads on the way."""

from dataclasses import dataclass

from pipelines.finetune_stream import Stream
from pipelines.train_group import Place, only_place, place_of
from vtray.classify.training import Training, TrainTask
from vtray.steps.load_batch import LoadBatch
from vtray.steps.worker import prepare_worker
from vtray.storage import open_storage


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkerJob:
    """What is sent to every worker. load: None if all rows are stored."""

    task: TrainTask
    load: LoadBatch | None
    loaders: int

    def alone(self) -> None:
        """In the only worker, which sees its own GPU: train to the end."""
        prepare_worker()
        self._train(only_place(self.task))

    def in_group(self) -> None:
        """In a worker of Ray Train: train to the end."""
        prepare_worker()
        self._train(place_of(self.task))

    def here(self) -> None:
        """In this process, without Ray."""
        self._train(only_place(self.task), here=True)

    def _train(self, place: Place, *, here: bool = False) -> None:
        Training(
            task=self.task,
            ranks=place.ranks,
            device=place.device,
            wrap=place.wrap,
            open_stream=self.stream(place.ranks.rank, place.ranks.size, here=here),
        ).run()

    def stream(self, rank: int, size: int, *, here: bool = False) -> Stream | None:
        """What loads images on the way, for one worker."""
        if self.load is None:
            return None
        return Stream(
            load=self.load,
            sampling=self.task.sampling,
            rank=rank,
            size=size,
            loaders=self.loaders,
            storage=open_storage(self.task.output_uri),
            folder=self.task.folder,
            balanced=self.task.balanced,
            here=here,
        )

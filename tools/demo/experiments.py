"""The demo's experiments: which models are trained, on which data, with which options."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from locat_mm.cli.running import tool_command

__all__ = ['DEMO', 'DIGITS', 'EXPERIMENTS', 'LAND', 'ROOT', 'SMOKE', 'Data', 'Experiment', 'Row']

ROOT = Path(__file__).resolve().parents[2]
#: ``--smoke``: a few updates, to check that every step runs
SMOKE = {
    'classify': ['train_cfg.max_epochs=1', 'param_scheduler=None'],
    'tune': ['train_cfg.max_epochs=1', 'param_scheduler=None'],
    'segment': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2'],
}
#: ``--families``: two epochs and 150 iterations; two processes share the global batch
SHORT = {
    'classify': ['train_cfg.max_epochs=2', 'train_dataloader.batch_size=32'],
    'segment': [
        *('train_cfg.max_iters=150', 'train_cfg.val_interval=150'),
        *('param_scheduler.0.total_steps=150', 'train_dataloader.batch_size=8'),
    ],
}


@dataclass(frozen=True)
class Data:
    """A data set that a converter writes, and the configs that read it.

    Attributes:
        name: of its folder in ``data`` and of its converter in ``tools/dataset_converters``.
        configs: name of the folder in ``configs``.
    """

    name: str
    configs: str

    @property
    def folder(self) -> Path:
        return Path('data') / self.name

    @property
    def scenes(self) -> Path:
        """The images with masks."""
        return self.folder / 'scenes'

    def config(self, name: str) -> Path:
        """A config, by its name below the folder of the configs."""
        return ROOT / 'configs' / self.configs / f'{name}.py'


DIGITS = Data('digit_scenes', 'demo')
LAND = Data('land_cover', 'land_cover')


@dataclass(frozen=True)
class Row:
    """One model, which is one row of the result table.

    Attributes:
        name: in the table.
        stem: common part of the names of its two configs, relative to the folder of the data's
            configs.
        start: the model whose trained classifier this model's classifier starts from, or None.
        trains: False if the classifier is that of ``start`` without any training.
        tunes: the key of the checkpoint in ``{stem}_tune.py``, if that config trains a few numbers
            of the classifier of ``start``.
        vector: what k-NN compares, see ``tools/analysis_tools/knn.py --features``.
        variant: name of the folder of what ``options`` make of the configs.
        options: ``'classify'`` or ``'segment'`` -> ``--cfg-options`` of that training and test.
    """

    name: str
    stem: str
    start: 'Row | None' = None
    trains: bool = True
    tunes: str | None = None
    vector: str = 'cls'
    variant: str = ''
    options: dict[str, list[str]] = field(default_factory=dict, hash=False)

    @property
    def source(self) -> 'Row':
        """The model whose weights this one has."""
        return self if self.trains or self.tunes or self.start is None else self.start


DEMO = (Row('ViT', 'vit'), Row('LocAtViT', 'locatvit'))
FIXED = Row('ViT + fixed Gaussian', 'ablation/vit_fixed', DEMO[0], trains=False)
ABLATION = (
    Row('ViT', 'vit'),
    Row('ViT + GAug', 'ablation/vit_gaug'),
    Row('ViT + PRR', 'ablation/vit_prr'),
    Row('LocAtViT', 'locatvit'),
    Row('ViT + GAP', 'ablation/vit_gap', vector='avg'),  # no class token
    Row('ViT - position embedding', 'ablation/vit_nopos'),
    Row('LocAtViT - position embedding', 'ablation/locatvit_nopos'),
    FIXED,
    Row('ViT + GAug tuned', 'ablation/vit_gaug_tuned', DEMO[0]),
    Row('LocAtViT, rotated', 'ablation/locatvit_rotated'),
    Row(
        *('ViT + GAug tuned, dense', 'ablation/vit_gaug_dense', DEMO[0]),
        trains=False,
        tunes='model.backbone.init_cfg.checkpoint',
    ),
    Row(
        *('ViT + LoRA', 'ablation/vit_lora', DEMO[0]),
        trains=False,
        tunes='model.module.init_cfg.checkpoint',
    ),
)
FAMILIES = (
    *DEMO,
    *(
        Row(f'{locat}{family}', f'families/{locat}{family}'.lower())
        for family in ('RegViT', 'RoPEViT', 'Jumbo', 'Swin')
        for locat in ('', 'LocAt')
    ),
)
FINE_VIT = Row('ViT', 'grid/vit_patch4')
GRID = (
    FINE_VIT,
    Row('LocAtViT', 'grid/locatvit_patch4'),
    Row('ViT + fixed Gaussian', 'grid/vit_patch4_fixed', FINE_VIT, trains=False),
)
FIXED_AND_LOCAT = ('ViT + fixed Gaussian', 'LocAtViT')
#: the demo's images for pretraining
ALL_IMAGES = 12_000


def grown(width: int, images: int) -> tuple[Row, ...]:
    """ViT and LocAtViT of another width, pretrained on some of the images.

    A head has 32 channels, as in the demo. The numbers of updates, and of those in warm-up, are the
    demo's within 2 %: fewer images are seen more often.

    Args:
        width: channels of a token, a multiple of 32.
        images: number of images; it divides ``ALL_IMAGES``.

    Returns:
        the row of ViT and that of LocAtViT.
    """
    heads, repeats = width // 32, ALL_IMAGES // images
    arch = [f'model.backbone.arch.{key}' for key in (f'embed_dim={width}', f'num_heads={heads}')]
    classify = [*arch, f'model.head.in_channels={width}']
    if repeats > 1:
        # The images are sorted by class, so every n-th makes a subset with as many of each.
        indices = ','.join(map(str, range(0, ALL_IMAGES, repeats)))
        classify += [
            *(f'train_dataloader.dataset.indices={indices}', f'train_cfg.max_epochs={8 * repeats}'),
            *(f'param_scheduler.0.end={repeats}', f'param_scheduler.1.begin={repeats}'),
            f'train_cfg.val_interval={4 * repeats}',
        ]
    segment = [*arch, f'model.decode_head.in_channels={width}']
    prr = dict(ViT=[], LocAtViT=[f'model.neck.num_heads={heads}'])
    return tuple(
        replace(
            row,
            name=f'{row.name}, width {width}, {images} images',
            variant=f'width{width}_images{images}',
            options=dict(classify=classify + prr[row.name], segment=segment),
        )
        for row in DEMO
    )


GROWTH = (
    *(row for images in (1500, 3000, 6000) for row in grown(64, images)),
    *(row for width in (64, 128, 256) for row in grown(width, ALL_IMAGES)),
)
SATELLITE = (
    DEMO[0],
    Row('ViT + fixed Gaussian', 'vit_fixed', DEMO[0], trains=False),
    DEMO[1],
)
ATTACH = (
    DEMO[0],
    Row('ViT, 4 more', 'attach/vit', DEMO[0]),
    Row('LocAt attached', 'attach/locatvit', DEMO[0]),
)


@dataclass(frozen=True)
class Experiment:
    """A result table: its models, and how they are trained.

    Attributes:
        rows: the models.
        folder: name of the folder in ``work_dirs``.
        options: ``'classify'`` or ``'segment'`` -> ``--cfg-options`` of that training.
        processes: per model; several start through the dist tools.
        summary: name of the JSON file of the table, without suffix.
        picture: name of the figure of segmentation maps, or None for no figure.
        features: also evaluate the pretrained features: k-NN, in-context segmentation, a figure of
            GAug's Gaussians.
        repeats: train every model over several seeds.
        data: what the models are trained on.
        baseline: add a row for the nearest colour, see ``colour_baseline.py``.
        compared: pairs of models whose difference the results page has, beside those to the first.
    """

    rows: tuple[Row, ...]
    folder: str
    options: dict[str, list[str]] = field(default_factory=dict)
    processes: int = 1
    summary: str = 'summary'
    picture: str | None = None
    features: bool = False
    repeats: bool = False
    data: Data = DIGITS
    baseline: bool = False
    compared: tuple[tuple[str, str], ...] = ()

    def root(self, smoke: bool) -> Path:
        """The folder of all runs."""
        return Path('work_dirs') / (f'{self.folder}_smoke' if smoke else self.folder)

    def work_dir(self, row: Row, seed: int, smoke: bool) -> Path:
        """The folder of one run."""
        return self.root(smoke) / row.stem / row.variant / f'seed{seed}'

    def command(self, tool: str, args: list[str]) -> list[str]:
        """The command line of a tool, such as ``'train'``, as a user would type it."""
        processes = self.processes if tool in ('train', 'test') else 1
        return tool_command(ROOT / 'tools', tool, args, processes)


EXPERIMENTS = {
    'demo': Experiment((DEMO[0], FIXED, DEMO[1]), 'demo', picture='demo.png', features=True),
    'ablation': Experiment(
        *(ABLATION, 'demo_ablation'),
        features=True,
        repeats=True,
        compared=(
            ('LocAtViT', 'ViT + GAug'),
            ('LocAtViT', 'ViT + PRR'),
            ('LocAtViT - position embedding', 'LocAtViT'),
            ('LocAtViT, rotated', 'LocAtViT'),
            FIXED_AND_LOCAT,
        ),
    ),
    'grid': Experiment(GRID, 'demo_grid', features=True, repeats=True, compared=(FIXED_AND_LOCAT,)),
    'growth': Experiment(GROWTH, 'demo_growth', repeats=True),
    'families': Experiment(FAMILIES, 'demo_families', SHORT, processes=2),
    'attach': Experiment(ATTACH, 'demo', summary='attach', picture='attach.png'),
    'satellite': Experiment(
        *(SATELLITE, 'demo_satellite'),
        picture='land_cover.png',
        features=True,
        repeats=True,
        data=LAND,
        baseline=True,
        compared=(FIXED_AND_LOCAT,),
    ),
}

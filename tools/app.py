"""A web page for uploads: a photo in, its map and a look inside the model out.

On a second tab, a few labelled examples and a photo give a segmentation without training. The
server answers this computer alone (127.0.0.1) unless --host says otherwise. It needs gradio:
pip install 'locat_mm[app]'.
"""

import argparse
import importlib.util
import tempfile

import cv2

from locat_mm.checkpoint import trust_checkpoints
from locat_mm.cli.app import App
from locat_mm.cli.arguments import add_trust_checkpoint
from locat_mm.cli.reporting import reports_errors

PAGE = (
    '<p><a href="/pages/{name}" target="_blank">Open the page in a tab of its own</a> (and save '
    'it there: it is one file).</p><iframe src="/pages/{name}" title="A look inside" '
    'style="width:100%;height:80vh;border:1px solid #8888"></iframe>'
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', required=True, help='config file of mmpretrain or mmseg')
    parser.add_argument('--checkpoint', required=True, help='checkpoint file; must fit')
    parser.add_argument(
        '--classes', metavar='FILE', help='a class name per line; by default those of the data set'
    )
    parser.add_argument(
        '--size', type=int, help='side that examples are resized to; default: of the backbone'
    )
    parser.add_argument('--host', default='127.0.0.1', help='address that the server listens at')
    parser.add_argument('--port', type=int, default=7860)
    parser.add_argument(
        '--most-megabytes', type=float, default=50, help='of an uploaded file; larger are refused'
    )
    add_trust_checkpoint(parser)
    args = parser.parse_args(argv)
    if importlib.util.find_spec('gradio') is None:
        parser.error("the app needs gradio: pip install 'locat_mm[app]' (or pip install gradio)")
    return args


def build(app: App):
    """The web application: gradio's page at /, what the app has written at /pages."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.staticfiles import StaticFiles

    def told(work):
        """Faults of an upload become one message, and the app goes on."""

        def run(*uploads):
            try:
                return work(*uploads)
            except (ValueError, AssertionError, RuntimeError, cv2.error) as error:
                raise gr.Error(str(error), duration=None, print_exception=False) from error

        return run

    def look(photo):
        overlay, page = app.look(photo)
        return overlay, PAGE.format(name=page.name)

    with gr.Blocks(title='locat_mm', analytics_enabled=False) as blocks:
        gr.Markdown('# locat_mm\nUploads stay on the computer that runs this server.')
        with gr.Tab('A photo'):
            photo = gr.File(label='photo')
            button = gr.Button('Look inside', variant='primary')
            overlay = gr.Image(label='map' if app.is_segmentor else 'what the model gets')
            page = gr.HTML()
            button.click(told(look), photo, [overlay, page], api_name='look')
        with gr.Tab('A few examples'):
            gr.Markdown(
                'A mask has the name of its image, ends in .png, and holds the number of the class '
                'in every pixel; 255 stands for no label.'
            )
            examples = gr.File(label='example images', file_count='multiple')
            masks = gr.File(label='their masks', file_count='multiple')
            target = gr.File(label='photo')
            segment = gr.Button('Segment', variant='primary')
            result = gr.Image(label='map')
            inputs = [examples, masks, target]
            segment.click(told(app.segment), inputs, result, api_name='segment')
    server = FastAPI()
    server.mount('/pages', StaticFiles(directory=app.folder))
    return gr.mount_gradio_app(server, blocks, '/')


@reports_errors
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    import uvicorn

    trust_checkpoints(args.trust_checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        app = App(
            *(args.config, args.checkpoint, folder, args.classes, args.most_megabytes),
            size=args.size,
        )
        server = build(app)
        print(f'The app: http://{args.host}:{args.port} (Ctrl+C ends it)', flush=True)
        uvicorn.run(server, host=args.host, port=args.port, log_level='warning')


if __name__ == '__main__':
    main()

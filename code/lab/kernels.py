"""A Jupyter server for the slides: for this user and whoever knows its token, no longer
than the program that started it.

It and its kernels talk over Unix sockets in a folder that only this user can enter: on
loopback other users of the machine could listen. Windows has none, so there it is TCP.

slides/engine/jupyter.mjs starts it and writes the token to its standard input, so that
it stands in no command line, environment or file. The first line that it prints is the
path of its socket, or its URL. It ends when its standard input does.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import (
    ZMQChannelsWebsocketConnection,
)
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 38   # bytes of the folder of our folder: a socket's path has at most 103


class OwnKernel(KernelSpecManager):
    """Knows the kernel of this Python only, whatever the user has installed."""

    def _kernel_dirs_default(self):
        return []


class QuietKernels(AsyncMappingKernelManager):
    """Keeps what a kernel says of itself out of the terminal; slides show the rest."""

    async def _async_start_kernel(self, **options):
        return await super()._async_start_kernel(
            **options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    start_kernel = _async_start_kernel


class Connection(ZMQChannelsWebsocketConnection):
    """Sends each message at once, not 40 ms later with the next ones."""

    def connect(self):
        self.websocket_handler.set_nodelay(True)
        return super().connect()


class Server(ServerApp):
    """Reads no configuration, loads no extension, and tells its token nobody."""

    def load_config_file(self, suppress_errors=True):
        pass

    def find_server_extensions(self):
        pass

    def load_server_extensions(self):
        pass

    def write_server_info_file(self):
        pass

    def write_browser_open_files(self):
        pass

    def init_signal(self):
        pass   # Ctrl-C in the terminal is for the program that started this

    def start_app(self):
        self.io_loop.add_callback(
            print, self.sock or f"http://127.0.0.1:{self.port}/", flush=True)
        threading.Thread(target=self.end_with_input, daemon=True).start()
        super().start_app()

    def end_with_input(self):
        sys.stdin.read()
        self.io_loop.add_callback(self.stop)
        threading.Timer(5, os._exit, [1]).start()


def folder_for_sockets():
    """Make a folder that only this user can enter, with a short path."""
    place = tempfile.gettempdir()
    return tempfile.mkdtemp(
        prefix="live-", dir=place if len(os.fsencode(place)) <= LONGEST else "/tmp")


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # idle threads would take the cores
    os.environ.pop("JUPYTER_TOKEN", None)
    os.environ.pop("MPLBACKEND", None)  # a slide shows what is drawn on it
    token = sys.stdin.readline().strip()
    where, config = {"ip": "127.0.0.1", "port": 0}, {}
    if os.name != "nt":
        folder = folder_for_sockets()
        where = {"sock": os.path.join(folder, "server"), "runtime_dir": folder}
        config = {"ConnectionFileMixin": {"transport": "ipc"}}
    server = Server.instance(   # a token of the configuration is never logged
        config=Config({"IdentityProvider": {"token": token}, **config}), **where,
        open_browser=False, root_dir=str(ROOT),
        allow_root=True,   # who is root here is so in a container
        kernel_manager_class=QuietKernels, kernel_spec_manager_class=OwnKernel,
        kernel_websocket_connection_class=Connection, terminals_enabled=False,
        log_level="ERROR")
    server.initialize(argv=[])
    try:
        server.start()
    finally:
        if server.sock:
            shutil.rmtree(folder, ignore_errors=True)

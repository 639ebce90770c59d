"""A Jupyter server for the slides: on loopback, for whoever knows its token, no longer
than the program that started it.

slides/engine/jupyter.mjs starts it and writes the token to its standard input, so that
it stands in no command line, environment or file. The first line that it prints is its
address. It ends when its standard input does.
"""

import os
import sys
import threading
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import (
    ZMQChannelsWebsocketConnection)
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]


class OwnKernel(KernelSpecManager):
    """Knows the kernel of this Python only, whatever the user has installed."""

    def _kernel_dirs_default(self):
        return []


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
        print(f"http://127.0.0.1:{self.port}", flush=True)
        threading.Thread(target=self.end_with_input, daemon=True).start()
        super().start_app()

    def end_with_input(self):
        sys.stdin.read()
        self.io_loop.add_callback(self.stop)
        threading.Timer(5, os._exit, [1]).start()


if __name__ == "__main__":
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # idle threads would take the cores
    os.environ.pop("JUPYTER_TOKEN", None)
    os.environ.pop("MPLBACKEND", None)  # a slide shows what is drawn on it
    token = sys.stdin.readline().strip()
    server = Server.instance(   # a token of the configuration is never logged
        config=Config({"IdentityProvider": {"token": token}}),
        ip="127.0.0.1", port=0, open_browser=False, root_dir=str(ROOT),
        allow_root=True,   # who is root here is so in a container
        kernel_spec_manager_class=OwnKernel,
        kernel_websocket_connection_class=Connection, terminals_enabled=False,
        log_level="ERROR")
    server.initialize(argv=[])
    server.start()

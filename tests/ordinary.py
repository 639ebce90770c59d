"""Cells as students write them; none of them is tampering, and each leaves its points.

test_tampering.py executes all of them in one kernel, a check after each.
"""

import re

ORDINARY = [cell.strip() for cell in re.split(r"(?m)^# --+\n", r'''
import matplotlib.pyplot as plt
plt.plot([1, 2])
# --
fig, ax = plt.subplots()
ax.set_title("loss")
plt.show()
# --
plt.figure(figsize=(2, 2)); plt.imshow(torch.rand(4, 4)); plt.colorbar()
plt.close("all")
# --
from matplotlib import animation
fig = plt.figure()
moving = animation.FuncAnimation(fig, lambda frame: [], frames=2)
moving.to_jshtml()
# --
plt.style.use("ggplot"); plt.rcParams["figure.dpi"] = 50
# --
plt.title("$\\frac$"); plt.plot([1])
# --
%matplotlib inline
# --
%matplotlib agg
# --
%config InlineBackend.figure_formats = ["svg", "retina"]
# --
%pylab inline --no-import-all
# --
%config InteractiveShell.ast_node_interactivity = "all"
# --
%cd /tmp
# --
import os; os.makedirs("/tmp/work", exist_ok=True); os.chdir("/tmp/work")
# --
%pushd /tmp
%popd
# --
%time sum(range(10))
# --
%%time
total = sum(range(10))
# --
%timeit -n 2 -r 1 sum(range(10))
# --
%prun -q sum(range(10))
# --
%load_ext autoreload
%autoreload 2
# --
%reload_ext autoreload
# --
%autosave 60
# --
%precision 3
# --
%xmode Minimal
# --
%pdb off
# --
%colors nocolor
# --
%pprint
# --
%env EDITOR=vi
%set_env TOKENIZERS_PARALLELISM=false
# --
%who
%whos
%lsmagic
# --
%pip --version
# --
!echo hello
files = !ls /tmp
!cat /proc/meminfo
# --
%%bash
echo hello
# --
%%writefile /tmp/helper_module.py
def helped(x):
    return 2 * x
# --
%run /tmp/helper_module.py
# --
import importlib, sys
sys.path.append("/tmp")
import helper_module
importlib.reload(helper_module)
# --
%%capture captured
print("kept")
# --
%alias_magic t timeit
# --
%automagic off
# --
%rehashx
# --
%store -r
# --
%logstart -q /tmp/log.py
%logstop
# --
from IPython.core.magic import register_line_magic
@register_line_magic
def shout(line):
    return line.upper()
# --
%shout hello
# --
get_ipython().run_line_magic("matplotlib", "inline")
# --
ip = get_ipython()
if ip is not None and "IPKernelApp" in ip.config:
    ip.run_line_magic("precision", "4")
# --
def handler(self, kind, value, trace, tb_offset=None):
    self.showtraceback((kind, value, trace), tb_offset=tb_offset)
get_ipython().set_custom_exc((ZeroDivisionError,), handler)
1 / 0
# --
sys.excepthook = lambda kind, value, trace: print(value)
# --
sys.displayhook
sys.ps1 = "> "
# --
from IPython.display import HTML, Image, Markdown, clear_output, display
display(HTML("<b>bold</b>"), Markdown("*x*")); clear_output()
# --
handle = display("first", display_id="mine"); handle.update("second")
# --
get_ipython().display_formatter.formatters["text/html"].for_type(
    dict, lambda value: f"<pre>{value}</pre>")
# --
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.ast_node_interactivity = "last_expr"
# --
import ipywidgets
slider = ipywidgets.IntSlider(); display(slider)
@ipywidgets.interact(x=3)
def shown(x):
    return x
# --
torch.set_default_dtype(torch.float64)
# --
torch.set_default_device("cpu")
# --
torch.set_default_device("meta")
# --
torch.set_default_dtype(torch.float16); torch.set_default_device(None)
# --
torch.set_default_tensor_type(torch.DoubleTensor)
# --
torch.set_printoptions(precision=2, sci_mode=False)
# --
torch.manual_seed(42); import random; random.seed(42)
# --
import numpy as np
np.random.seed(42); rng = np.random.default_rng(0)
# --
torch.use_deterministic_algorithms(True)
torch.backends.cudnn.benchmark = False
# --
torch.set_num_threads(1)
# --
torch.set_float32_matmul_precision("high")
# --
torch.set_grad_enabled(False)
# --
torch.inference_mode().__enter__()
# --
torch.autocast("cpu").__enter__()
# --
with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
    torch.ones(2, 2) @ torch.ones(2, 2)
# --
torch.autograd.set_detect_anomaly(True)
# --
compiled = torch.compile(lambda x: x + 1, backend="eager")
compiled(torch.ones(2))
# --
@torch.jit.script
def scripted(x):
    return x + 1
scripted(torch.ones(2))
# --
traced = torch.jit.trace(lambda x: x + 1, torch.ones(2))
# --
import torch.fx
traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
# --
exported = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
# --
torch.func.vmap(torch.sin)(torch.ones(2, 2)); torch.func.grad(torch.sum)(torch.ones(2))
# --
torch.func.functional_call(nn.Linear(2, 2), {}, torch.ones(1, 2))
# --
class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 2

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope
Square.apply(torch.ones(2, requires_grad=True)).sum().backward()
# --
layer = nn.Linear(2, 2)
layer.register_forward_hook(lambda module, given, found: print(found.shape))
layer.register_full_backward_hook(lambda module, given, found: None)
layer(torch.ones(1, 2)).sum().backward()
# --
nn.modules.module.register_module_forward_hook(lambda module, given, found: None)
# --
optimizer = torch.optim.AdamW(layer.parameters(), foreach=False)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
optimizer.step(); scheduler.step()
# --
from torch.utils.data import DataLoader, TensorDataset
list(DataLoader(TensorDataset(torch.arange(4.0)), 2, shuffle=True, num_workers=1))
# --
nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
# --
with torch.profiler.profile() as profile:
    torch.ones(2).sum()
# --
torch.save(layer.state_dict(), "/tmp/w.pt"); torch.load("/tmp/w.pt", weights_only=True)
# --
from torch.nn.attention import SDPBackend, sdpa_kernel
with sdpa_kernel(SDPBackend.MATH):
    F.scaled_dot_product_attention(*torch.ones(3, 1, 1, 2, 2))
# --
import threading
thread = threading.Thread(target=print, args=["from a thread"])
thread.start(); thread.join()
# --
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2) as pool:
    list(pool.map(abs, [-1]))
# --
import multiprocessing
with multiprocessing.Pool(1) as pool:
    pool.map(abs, [-1])
# --
import logging
logging.basicConfig(level=logging.DEBUG, force=True); logging.info("x")
logging.captureWarnings(True)
# --
import warnings
warnings.filterwarnings("ignore")
# --
warnings.simplefilter("error")
# --
os.environ["CUDA_VISIBLE_DEVICES"] = ""; os.environ["OMP_NUM_THREADS"] = "2"
# --
import locale
locale.setlocale(locale.LC_ALL, "C")
# --
import decimal, fractions
decimal.getcontext().prec = 5
# --
import gc
gc.collect(); gc.disable(); gc.enable(); gc.set_threshold(1000)
# --
from tqdm import tqdm
from tqdm.auto import trange
for _ in tqdm(range(2)): pass
for _ in trange(2): pass
# --
np.seterr(all="raise"); np.set_printoptions(precision=2, suppress=True)
# --
from einops import rearrange
from einops.layers.torch import Rearrange
rearrange(torch.ones(2, 3), "a b -> b a"); Rearrange("a b -> b a")(torch.ones(2, 3))
# --
from sklearn.linear_model import LogisticRegression
LogisticRegression().fit([[0.0], [1.0]], [0, 1])
# --
import scipy.signal
scipy.signal.convolve([1, 2], [1, 2])
# --
import torchvision
from torchvision import transforms
torchvision.models.resnet18(weights=None)
# --
import ignite.engine
from ignite.engine import Engine
Engine(lambda engine, batch: 1.0).run([1])
# --
class Net(nn.Module):
    def forward(self, x):
        return x
Net.forward = lambda self, x: 2 * x
Net.__repr__ = lambda self: "Net"
# --
def helper(x): return x
def helper(x): return 2 * x
# --
from torch import *
# --
from math import *
from numpy import *
# --
def sum(values, *rest, **more): return 0
max = min = abs = len = print
# --
list = [1, 2, 3]; str = "text"; range = 5; type = id = "x"; Exception = 1; float = None
# --
del list, str, range, type, id, Exception, float, sum, max, min, abs, len
# --
import torch.nn.functional as F
from torch import Tensor, nn
# --
from dataclasses import dataclass, field
@dataclass
class Config:
    width: int = 3
    sizes: dict = field(default_factory=dict)
Config()
# --
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(ValueError):
    print("hidden")
# --
import functools
print = functools.partial(print, flush=True)
# --
import builtins
builtins.print = print
# --
@functools.lru_cache(maxsize=None)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
# --
sys.setrecursionlimit(10 ** 5)
# --
import time, datetime
start = time.time(); time.sleep(0.01); f"{time.time() - start:.1f}"
# --
import json, re, copy, math, collections, itertools, operator, pathlib, typing, enum
json.dumps({}); re.compile("x"); copy.deepcopy([1])
# --
import inspect
inspect.signature(helper), inspect.getsource(helper)
# --
import pdb, traceback, unittest, doctest
try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
# --
unittest.main(argv=["x"], exit=False)
# --
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
# --
import asyncio
await asyncio.sleep(0)
# --
help(torch.equal)
# --
torch.relu?
# --
raise ValueError("a cell that fails")
# --
assert False, "and another"
# --
x: int = 3
_ = x
__ = 1
# --
torch.Tensor.__repr__ = lambda self: f"tensor of {tuple(self.shape)}"
# --
import platform, subprocess
platform.platform(); subprocess.run(["true"])
in_colab = "google.colab" in sys.modules
activation = getattr(nn, "re".upper() + "LU")()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
getattr(nn, "Linear")(2, 2).eval()
# --
%reset -f
# --
%reset_selective -f x
# --
%matplotlib notebook
# --
%gui
# --
import torch._dynamo; torch._dynamo.reset()
# --
from torch.utils.tensorboard import SummaryWriter
# --
import pandas as pd
pd.set_option("display.max_rows", 5)
''')]

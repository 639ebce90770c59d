"""What in the code of a submission a human should look at.

A name is no proof and costs no points: it is what those use who forge what checks
report, and hardly ever what an exercise asks for. Names that are put together while
the code runs are not seen; the ways of doing so are, as far as they have a name.
"""

import ast
import re

from nbgrader.utils import is_grade, is_locked

NAMES = set("""
    addaudithook settrace setprofile monitoring _getframe _current_frames currentframe
    getouterframes getinnerframes f_back f_locals f_globals f_builtins f_trace f_lineno
    f_code tb_frame gi_frame cr_frame ag_frame __code__ __closure__ cell_contents
    __globals__ __builtins__ __defaults__ __kwdefaults__ __subclasses__ __mro__
    co_consts co_code CodeType FunctionType get_objects get_referrers get_referents
    ctypes cffi _ctypes pythonapi memmove linecache publish_display_data display_pub
    ast_transformers input_transformers_post input_transformers_cleanup
    input_transformer_manager cleanup_transforms line_transforms token_transformers
    run_cell run_cell_async run_code run_ast_nodes transform_cell do_execute
    execute_request shell_handlers iopub_socket iopub_thread history_manager user_ns
    user_global_ns parent_header set_parent ast_parse should_run_async
    __import__ exec eval compile marshal code codeop code_wrap
    meta_path path_hooks find_spec spec_from_file_location module_from_spec
    SourceFileLoader exec_module import_module TorchFunctionMode __torch_function__
    TorchDispatchMode __torch_dispatch__ _push_mode _pop_mode DisableTorchFunction
    """.split())
ATTRIBUTES = {"exec", "eval", "compile", "code"}   # ordinary as one of something else
INTERNAL = {"passed", "guard", "settle", "resume", "settled", "Tampered", "PASSED",
            "installed", "body", "SHOWN", "LATER"}   # of lab.checks
WORDS = re.compile(r"vnd\.lab|lab\.checks|/proc/(?!cpuinfo|meminfo)|PyEval_|PySys_")
MODULES = {"sys", "builtins", "gc", "inspect", "checks", "lab", "importlib",
           "get_ipython", "ip", "ipython", "shell"}
READERS = {"getattr", "setattr", "delattr", "vars", "dir"}
MOST = 8   # names in a note


def notes(cells, part):
    """[(grade_id, why)] of the cells that a student wrote."""
    written = [cell for cell in cells if cell.cell_type == "code"]
    given = set().union(*(assigned(cell.source) for cell in written
                          if is_locked(cell) and not is_grade(cell)))
    found = []
    for cell in written:
        if is_locked(cell):
            continue
        for what, names in [
                ("look at its code: it uses", suspicious(cell.source)),
                ("it redefines what the checks may use:",
                 sorted(given & assigned(cell.source)))]:
            if names:
                listed = ", ".join(names[:MOST]) + (", …" if names[MOST:] else "")
                found.append((part(cell) or "", f"{what} {listed}"))
    return found


def assigned(source):
    """Names that the cell gives a value, imports aside."""
    try:
        body = ast.parse(without_magics(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {name for node in body for name in (
        [node.name] if hasattr(node, "name") else
        [name.id for name in ast.walk(node) if isinstance(name, ast.Name)
         and isinstance(name.ctx, ast.Store)])}


def suspicious(source):
    """Names and words in this code that a human should look at, sorted."""
    try:
        found = used(ast.parse(without_magics(source)))
        rest = "\n".join(filter(is_magic, source.split("\n")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found, rest = set(), source
    return sorted(found | set(re.findall(r"\w+", rest)) & (NAMES - ATTRIBUTES)
                  | set(WORDS.findall(rest)))


def used(tree):
    """Those that a syntax tree has."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found |= {node.id} & NAMES
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} & (NAMES - ATTRIBUTES)
            if isinstance(node.value, ast.Name | ast.Attribute) and (
                    getattr(node.value, "id", getattr(node.value, "attr", ""))
                    == "checks"):
                found |= {f"checks.{name}" for name in {node.attr} & INTERNAL}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                path = f"{getattr(node, 'module', None) or ''}.{alias.name}".split(".")
                found |= set(path) & (NAMES - {"compile", "eval"})
        elif isinstance(node, ast.Call):
            found |= by_name(node)
        text = folded(node)
        if text:
            found |= {text} & (NAMES - ATTRIBUTES) | set(WORDS.findall(text))
    return found


def without_magics(source):
    """The code, with `pass` for lines that only IPython understands."""
    return "\n".join(
        f"{line[:len(line) - len(line.lstrip())]}pass" if is_magic(line) else line
        for line in source.split("\n"))


def is_magic(line):
    line = line.strip()
    return line.startswith(("%", "!", "?")) or line.endswith("?") or bool(
        re.match(r"\w+ *= *[%!]", line))


def by_name(call):
    """An attribute of a module that is asked for by a name which is not written out."""
    name = getattr(call.func, "id", "")
    if name not in READERS or not call.args or (
            len(call.args) > 1 and folded(call.args[1])):
        return set()
    return {f"{name}({node.id}, …)" for node in ast.walk(call.args[0])
            if isinstance(node, ast.Name) and node.id in MODULES}


def folded(node):
    """The text of a constant, or of a sum of constants; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return node.value.decode("latin-1")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = folded(node.left), folded(node.right)
        return left + right if left is not None and right is not None else None
    return None

"""Functions and classes as their sources define them: signatures, types, defaults."""

import ast
from copy import deepcopy
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "realm"
MAX_WIDTH = 100
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree_of(module: str) -> ast.Module:
    """Return a module's source, parsed; `module` is its path below src/realm without suffix."""
    return ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))


def signature(module: str, node: Function) -> str:
    """Return a function's first lines, an argument a line where they are many."""
    head = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    decorators = [ast.unparse(one) for one in node.decorator_list if _is_told(one)]
    parts = _parts(ast.unparse(_Constants(module).visit(deepcopy(node.args))))
    returns = f" -> {type_text(node.returns)}" if node.returns else ""
    line = f"{head} {node.name}({', '.join(parts)}){returns}: ..."
    if len(line) > MAX_WIDTH:
        line = "\n".join(
            [f"{head} {node.name}(", *(f"    {part}," for part in parts), f"){returns}: ..."]
        )
    return "\n".join([*(f"@{one}" for one in decorators), line])


def _parts(arguments: str) -> list[str]:
    """Return the arguments of a signature, taken apart at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        is_ours = not depth and ":" in parts[-1]  # its annotation has begun, and no bracket is open
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += " = " if character == "=" and is_ours else character
    return [part.strip() for part in parts if part.strip()]


class _Constants(ast.NodeTransformer):
    """Puts values for the names of constants that stand as defaults."""

    def __init__(self, module: str) -> None:
        self.module = module

    def visit_arguments(self, node: ast.arguments) -> ast.arguments:
        """Look at the defaults alone."""
        node.defaults = [self._value(one) for one in node.defaults]
        node.kw_defaults = [one and self._value(one) for one in node.kw_defaults]
        return node

    def _value(self, default: ast.expr) -> ast.expr:
        found = _constant(self.module, default.id) if isinstance(default, ast.Name) else None
        return found or default


def _constant(module: str, name: str) -> ast.Constant | None:
    """Return the value of a constant of a module, or of the one it was imported from."""
    for line in tree_of(module).body:
        match line:
            case (
                ast.Assign(targets=[ast.Name(id=known)], value=ast.Constant() as value)
                | ast.AnnAssign(target=ast.Name(id=known), value=ast.Constant() as value)
            ) if known == name:
                return value
            case ast.ImportFrom(module=str(source)) if source.startswith("realm."):
                if name in {one.name for one in line.names}:
                    path = source.removeprefix("realm.").replace(".", "/")
                    is_package = (SOURCE / path).is_dir()
                    return _constant(f"{path}/__init__" if is_package else path, name)
            case _:
                pass
    return None


def type_text(annotation: ast.expr | None) -> str:
    """Return a type as it is written, without the quotes of a name that is defined later."""
    match annotation:
        case None:
            return ""
        case ast.Constant(value=str(text)):
            return text
        case _:
            return ast.unparse(annotation)


def is_public(node: Function) -> bool:
    """Return whether callers may use it: no underscore, no overload, no setter."""
    decorators = [ast.unparse(one) for one in node.decorator_list]
    is_further = any(one == "overload" or one.endswith(".setter") for one in decorators)
    return not node.name.startswith("_") and not is_further


def is_property(node: Function) -> bool:
    """Return whether it is read like an attribute."""
    return any("property" in ast.unparse(one) for one in node.decorator_list)


def is_constructor(node: Function) -> bool:
    """Return whether it is a method of the class itself."""
    return any(ast.unparse(one) == "classmethod" for one in node.decorator_list)


def _is_told(decorator: ast.expr) -> bool:
    return ast.unparse(decorator) in {"classmethod", "staticmethod"}


def dotted(module: str) -> str:
    """Return the name to import a module by."""
    return f"realm.{module.replace('/', '.')}".removesuffix(".__init__")

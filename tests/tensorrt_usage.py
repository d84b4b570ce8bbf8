"""What our code does with TensorRT, held against the real bindings without running it.

A small type inference over the syntax tree: the module `trt` is known, calls return what their
docstrings in the bindings say, and where our own code says `Any` a table gives the type. Every
attribute must exist, every call and every overridden method must fit a signature.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorrt_bindings import Bindings, Signature

_MODULE_NAMES = ("trt", "tensorrt")


def uses_tensorrt(tree: ast.AST) -> bool:
    """Return whether a module speaks to TensorRT itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "trt":
            return True
        if isinstance(node, ast.Import) and any(a.name == "tensorrt" for a in node.names):
            return True
        if isinstance(node, ast.Call) and _imports_by_name(node):
            return True
    return False


def _imports_by_name(call: ast.Call) -> bool:
    """Return whether a call is `import_module("tensorrt")`."""
    return _name(call.func) == "import_module" and any(
        isinstance(argument, ast.Constant) and argument.value == "tensorrt"
        for argument in call.args
    )


def any_functions(trees: Sequence[ast.AST]) -> set[str]:
    """Return the names of functions that return `Any`."""
    return {
        _plain(node.name)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _is_any(node.returns)
    }


def any_fields(trees: Sequence[ast.AST]) -> set[str]:
    """Return the names of variables and fields that are `Any`."""
    return {
        _plain(_name(node.target))
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and _is_any(node.annotation)
    }


def _name(target: ast.expr) -> str:
    """Return the last name of `a` or `a.b`, empty of anything else."""
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def _is_any(annotation: ast.expr | None) -> bool:
    """Return whether an annotation is `Any`, alone or `Any | None`."""
    if isinstance(annotation, ast.BinOp):
        return _is_any(annotation.left) or _is_any(annotation.right)
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def _plain(name: str) -> str:
    return name.lstrip("_")


class Usage:
    """One module, checked against one version of the bindings.

    Attributes:
        complaints: what does not fit, one line each.
        seen: every dotted name of the bindings that the module uses.
    """

    def __init__(
        self,
        bindings: Bindings,
        table: Mapping[str, str],
        functions: set[str],
        fields: set[str],
        file: str,
    ) -> None:
        """Prepare.

        Args:
            bindings: what there is.
            table: type of what our code calls `Any`; empty: not TensorRT's.
            functions: names of our functions that return `Any`.
            fields: names of our fields that are `Any`.
            file: for complaints.
        """
        self.complaints: list[str] = []
        self.seen: set[str] = set()
        self._bindings = bindings
        self._table = table
        self._functions = functions
        self._any_fields = fields
        self._file = file
        self._fields: dict[str, str] = {}  # type of `self.name`, from assignments

    def check(self, tree: ast.Module) -> Usage:
        """Check a module; return self."""
        # Twice: methods may use fields that a later method assigns.
        for _ in range(2):
            self.complaints.clear()
            self._block(tree.body, {})
        return self

    # ---- statements ----------------------------------------------------------------------------

    def _block(self, body: Sequence[ast.stmt], names: dict[str, str | None]) -> None:
        for statement in body:
            self._statement(statement, names)

    def _statement(self, node: ast.stmt, names: dict[str, str | None]) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names[node.name] = None
            self._function(node, dict(names))
        elif isinstance(node, ast.ClassDef):
            self._class(node, names)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value, names)
        elif isinstance(node, ast.AnnAssign):
            value = self._infer(node.value, names) if node.value is not None else None
            if _is_any(node.annotation) and value is None:
                value = self._declared(_name(node.target), node)
            self._bind(node.target, value, names)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self._bind(node.target, _element(self._infer(node.iter, names)), names)
            self._block([*node.body, *node.orelse], names)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                value = self._infer(item.context_expr, names)
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, value, names)
            self._block(node.body, names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    "module" if alias.name == "tensorrt" else None
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known = node.module == "tensorrt" and node.level == 0
                names[alias.asname or alias.name] = (
                    self._attribute("module", alias.name, node) if known else None
                )
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    self._statement(child, names)
                elif isinstance(child, ast.expr):
                    self._infer(child, names)
                elif isinstance(child, ast.ExceptHandler):
                    if child.name is not None:
                        names[child.name] = None
                    self._block(child.body, names)

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, names: dict[str, str | None]
    ) -> None:
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            known = self._declared(argument.arg, node) if _is_any(argument.annotation) else None
            names[argument.arg] = known
        for default in (*arguments.defaults, *(d for d in arguments.kw_defaults if d)):
            self._infer(default, names)
        self._block(node.body, names)

    def _class(self, node: ast.ClassDef, names: dict[str, str | None]) -> None:
        bases = [self._infer(base, names) for base in node.bases]
        known = next((base for base in bases if base and base.startswith("class:")), None)
        if known is not None:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    self._override(known.removeprefix("class:"), method)
        names[node.name] = f"sub{known}" if known is not None else None
        self._block(node.body, dict(names))

    def _override(self, base: str, method: ast.FunctionDef) -> None:
        """Check that a method overrides one of the bindings, with its parameters."""
        signatures = self._bindings.signatures(f"{base}.{method.name}")
        given = [argument.arg for argument in method.args.args[1:]]
        self.seen.add(f"{base}.{method.name}")
        if not any([p.name for p in signature.parameters] == given for signature in signatures):
            listed = ", ".join(given)
            self._complain(method, f"{base} has no {method.name}({listed}) to override")

    def _assign(self, target: ast.expr, value: ast.expr, names: dict[str, str | None]) -> None:
        if (
            isinstance(target, ast.Tuple)
            and isinstance(value, ast.Tuple)
            and len(target.elts) == len(value.elts)
        ):
            kinds = [self._infer(element, names) for element in value.elts]
            for element, kind in zip(target.elts, kinds, strict=True):
                self._bind(element, kind, names)
        else:
            self._bind(target, self._infer(value, names), names)

    def _bind(self, target: ast.expr, value: str | None, names: dict[str, str | None]) -> None:
        if isinstance(target, ast.Name):
            names[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element in target.elts:
                self._bind(element, _element(value), names)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, None, names)
        elif isinstance(target, ast.Attribute):
            owner = self._infer(target.value, names)
            if owner is not None:
                self._set(owner, target, value)
            elif isinstance(target.value, ast.Name) and target.value.id == "self" and value:
                self._fields[target.attr] = value
        else:
            self._infer(target, names)

    def _set(self, owner: str, target: ast.Attribute, value: str | None) -> None:
        expected = self._attribute(owner, target.attr, target)
        found = self._bindings.entry(f"{owner}.{target.attr}") or {}
        if found and not found.get("settable"):
            self._complain(target, f"{owner}.{target.attr} cannot be set")
        if expected and value and not self._fits(value, expected):
            self._complain(target, f"{owner}.{target.attr} takes {expected}, not {value}")

    # ---- expressions ---------------------------------------------------------------------------

    def _infer(self, node: ast.expr, names: dict[str, str | None]) -> str | None:
        """Return the type of an expression where it is TensorRT's, and check what it does."""
        if isinstance(node, ast.Name):
            if node.id in names:
                return names[node.id]
            return "module" if node.id in _MODULE_NAMES else None
        if isinstance(node, ast.Attribute):
            return self._read(node, names)
        if isinstance(node, ast.Call):
            return self._call(node, names)
        if isinstance(node, ast.NamedExpr):
            value = self._infer(node.value, names)
            self._bind(node.target, value, names)
            return value
        if isinstance(node, ast.Subscript):
            self._infer(node.slice, names)
            return _element(self._infer(node.value, names))
        if isinstance(node, ast.IfExp):
            self._infer(node.test, names)
            return self._first(names, node.body, node.orelse)
        if isinstance(node, ast.BoolOp):
            return self._first(names, *node.values)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            return self._comprehension(node, dict(names))
        if isinstance(node, (ast.List, ast.Tuple)):
            kind = self._first(names, *node.elts)
            return f"list:{kind}" if kind else None
        if isinstance(node, ast.Lambda):
            inner = dict(names) | {argument.arg: None for argument in node.args.args}
            self._infer(node.body, inner)
            return None
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._infer(child, names)
        return None

    def _first(self, names: dict[str, str | None], *nodes: ast.expr) -> str | None:
        return next((t for t in [self._infer(node, names) for node in nodes] if t), None)

    def _comprehension(
        self,
        node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
        names: dict[str, str | None],
    ) -> str | None:
        for part in node.generators:
            self._bind(part.target, _element(self._infer(part.iter, names)), names)
            for condition in part.ifs:
                self._infer(condition, names)
        if isinstance(node, ast.DictComp):
            self._infer(node.key, names)
            self._infer(node.value, names)
            return None
        element = self._infer(node.elt, names)
        return f"list:{element}" if element else None

    def _read(self, node: ast.Attribute, names: dict[str, str | None]) -> str | None:
        owner = self._infer(node.value, names)
        if owner is not None:
            return self._attribute(owner, node.attr, node)
        if node.attr in self._fields and isinstance(node.value, ast.Name):
            return self._fields[node.attr]
        # A field of an object of ours, declared `Any` somewhere.
        if _plain(node.attr) in self._any_fields:
            return self._declared(node.attr, node)
        return None

    def _attribute(self, owner: str, name: str, node: ast.AST) -> str | None:
        if owner.startswith(("list:", "call:")):
            return None
        owner = owner.removeprefix("sub")
        path = name if owner == "module" else f"{owner.removeprefix('class:')}.{name}"
        self.seen.add(path)
        if name.startswith("__") and name != "__version__":
            return None
        exists, kind = self._bindings.attribute(owner, name)
        if not exists:
            self._complain(node, f"TensorRT {self._bindings.version} has no {path}")
        return kind

    def _call(self, node: ast.Call, names: dict[str, str | None]) -> str | None:
        function = self._infer(node.func, names)
        given = [self._infer(argument, names) for argument in node.args]
        named = {k.arg: self._infer(k.value, names) for k in node.keywords if k.arg is not None}
        if _imports_by_name(node):
            return "module"
        if function is None:
            called = _name(node.func)
            return self._declared(called, node) if _plain(called) in self._functions else None
        if function.startswith("subclass:"):  # a class of ours makes objects of its base
            return function.removeprefix("subclass:")
        kind, _, path = function.partition(":")
        if kind not in ("call", "class"):
            self._complain(node, f"{function} is called")
            return None
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        starred = starred or any(k.arg is None for k in node.keywords)
        signatures = self._bindings.signatures(path)
        # `Base.__init__(self)`: the first argument is the object itself.
        fitting = [s for s in signatures if starred or self._accepts(s, given, named)]
        if signatures and not fitting:
            self._complain(
                node, f"{path}({ast.unparse(node).partition('(')[2]} fits no way to call it"
            )
        if kind == "class":
            return path
        return next((s.returns for s in fitting if s.returns), None)

    def _accepts(
        self, signature: Signature, given: Sequence[str | None], named: Mapping[str, str | None]
    ) -> bool:
        parameters = signature.parameters
        if len(given) > len(parameters):
            return False
        taken = dict(zip((p.name for p in parameters), given, strict=False))
        if taken.keys() & named.keys():
            return False
        taken |= named
        if not taken.keys() <= {p.name for p in parameters}:
            return False
        return all(
            (p.optional or p.name in taken) and self._fits(taken.get(p.name), p.type)
            for p in parameters
        )

    def _fits(self, given: str | None, wanted: str | None) -> bool:
        """Return whether a type may stand for another; what is not known may."""
        if given is None or wanted is None or ":" in given:
            return True
        return self._bindings.is_kind_of(given, wanted)

    def _declared(self, name: str, node: ast.AST) -> str | None:
        """Return the table's type of something our code calls `Any`."""
        if _plain(name) not in self._table:
            self._complain(node, f"{name} is Any: say in TYPES what it is ('' if not TensorRT's)")
            return None
        return self._table[_plain(name)] or None

    def _complain(self, node: ast.AST, text: str) -> None:
        self.complaints.append(f"{self._file}:{getattr(node, 'lineno', 0)}: {text}")


def _element(kind: str | None) -> str | None:
    """Return the type of what a list holds."""
    return kind.removeprefix("list:") if kind is not None and kind.startswith("list:") else None

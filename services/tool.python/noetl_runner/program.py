"""From the text of a task to a program: what Python compiles, and a `return` at the top level."""

import ast

BODY = "__noetl_body__"
#: Programs kept: a loop runs the same one for every item.
COMPILED_MAX = 64

compiled = {}


def program_of(code, filename):
    """The code, compiled. A `return` at its top level is allowed, and ends it with that result."""
    known = compiled.get((code, filename))
    if known:
        return known
    tree = ast.parse(code, filename)
    try:
        program = compile(tree, filename, "exec")
    except SyntaxError as error:
        if error.msg != "'return' outside function":
            raise
        program = compile(in_function(tree), filename, "exec")
    if len(compiled) >= COMPILED_MAX:
        compiled.clear()
    compiled[code, filename] = program
    return program


def in_function(tree):
    """The same statements as the body of a function whose names all stay global."""
    scope = TopLevel()
    body = [scope.visit(statement) for statement in tree.body]
    ahead = []
    while body and isinstance(body[0], ast.ImportFrom) and body[0].module == "__future__":
        ahead.append(body.pop(0))
    module = ast.parse("def %s():\n    pass" % BODY)
    declared = [ast.Global(names=sorted(scope.names))] if scope.names else []
    module.body[0].body = declared + body
    module.body[:0] = ahead
    return ast.fix_missing_locations(module)


class TopLevel(ast.NodeTransformer):
    """Gathers the names that statements bind where they stand, not within functions."""

    def __init__(self):
        self.names = set()

    def visit_FunctionDef(self, node):
        self.names.add(node.name)
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

    def visit_Lambda(self, node):
        return node

    def visit_ListComp(self, node):
        found = (part for part in ast.walk(node) if isinstance(part, ast.NamedExpr))
        self.names.update(part.target.id for part in found)
        return node

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_Name(self, node):
        if not isinstance(node.ctx, ast.Load):
            self.names.add(node.id)
        return node

    def visit_alias(self, node):
        self.names.add(node.asname or node.name.split(".")[0])
        return node

    def visit_AnnAssign(self, node):
        # Python allows no annotation of a global name within a function.
        if not isinstance(node.target, ast.Name):
            return self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        assign = ast.Assign(targets=[node.target], value=node.value)
        return self.generic_visit(ast.copy_location(assign, node))

    def generic_visit(self, node):
        # `except … as name`, `case name`, `case [*name]`, `case {**rest}`
        for field in ("name", "rest"):
            if isinstance(getattr(node, field, None), str):
                self.names.add(getattr(node, field))
        return super().generic_visit(node)

# SPDX-License-Identifier: GPL-2.0-only
"""Drafts an annotated C case from a program that a kernel answers wrongly. Pure."""

from __future__ import annotations

from typing import Iterator, List

from harness.fuzz import ir, oracle, rules, world

_SECTIONS = {"sched_cls": "tc", "sched_act": "tc", "socket_filter": "socket", "lwt_in": "lwt_in"}
_SECTIONS.update(xdp="xdp", kprobe="kprobe", tracepoint="tracepoint", perf_event="perf_event")
_SECTIONS.update(raw_tracepoint="raw_tp", cgroup_skb="cgroup_skb/egress", sk_skb="sk_skb")
_WIDTHS = {1: "__u8", 2: "__u16", 4: "__u32", 8: "__u64"}
_NAMES = {ir.STATIC: "part", ir.GLOBAL: "whole", ir.EACH: "for_element", ir.LOOP: "round"}


def draft(program: ir.Program, verdict: oracle.Verdict) -> str:
    """Return C for bpf_progs/rules: a beginning, which needs names, a twin and the text of a refusal."""
    lines = ['#include "spinlock.h"', ""]
    maps = [getattr(s, "map", "") for s in ir.everything(program)]
    for name in dict.fromkeys(name for name in maps if name):
        lines += [*_map(name), ""]
    variables = ", ".join(f"*v{var}" for var in range(ir.VARIABLES))
    lines += [f"struct variables {{ void {variables}; }};", ""]
    for number in range(len(program.functions) - 1, 0, -1):
        lines += [*_function(program, number), ""]
    title = rules.BOOK.get(verdict.reason, "A locked update loads and runs")
    section = _SECTIONS.get(program.type, program.type)
    expected = "__success" if verdict.answer == oracle.ACCEPT else "__failure"
    lines.append(f'SEC("{section}") __rule("{title}") __loader(libbpf) {expected}')
    lines.append("int found_by_fuzzing(void *ctx)")
    lines += ["{", "\tstruct variables own = {}, *v = &own;", "\t__u32 input = *(__u32 *)ctx;", ""]
    lines += _body(program, program.functions[0].body, 1)
    return "\n".join([*lines, "\treturn 0;", "}", ""])


def _map(name: str) -> Iterator[str]:
    kind = world.MAPS[name]
    if kind.inner:
        yield f"/* {name}: a hash of maps such as {kind.inner}; see inner_map.bpf.c */"
        return
    yield "struct {"
    yield f"\t__uint(type, BPF_MAP_TYPE_{'ARRAY' if kind.is_array else 'HASH'});"
    yield f"\t__uint(max_entries, {kind.entries});"
    yield "\t__type(key, __u32);"
    value = {world.BEHIND: "struct behind", world.FRONT: "struct front", world.PLAIN: "__u64"}
    yield f"\t__type(value, {value[kind.layout]}); /* lock at {kind.layout.lock} */"
    yield f'}} {name} SEC(".maps");'


def _function(program: ir.Program, number: int) -> List[str]:
    function = program.functions[number]
    name = f"{_NAMES[function.kind]}_{number}"
    heads = {
        ir.STATIC: f"static __noinline int {name}(struct variables *v, __u32 input)",
        ir.GLOBAL: f"__noinline int {name}(void)",
        ir.EACH: f"static long {name}(void *map, __u32 *key, void *value, struct variables *v)",
        ir.LOOP: f"static long {name}(__u32 index, struct variables *v)",
    }
    own = ["\tstruct variables own = {}, *v = &own;", ""] if function.kind == ir.GLOBAL else []
    body = _body(program, function.body, 1)
    return [heads[function.kind], "{", *own, *body, "\treturn 0;", "}"]


def _body(program: ir.Program, body: ir.Body, depth: int) -> List[str]:
    tab = "\t" * depth
    lines: List[str] = []
    for s in body:
        if isinstance(s, (ir.If, ir.IfSet)):
            asked = f"v->v{s.var}" if isinstance(s, ir.IfSet) else f"input & {1 << s.bit:#x}"
            lines += [f"{tab}if ({asked}) {{", *_body(program, s.then, depth + 1)]
            if s.orelse:
                lines += [f"{tab}}} else {{", *_body(program, s.orelse, depth + 1)]
            lines.append(f"{tab}}}")
        elif isinstance(s, ir.Repeat):
            lines.append(f"{tab}for (int i = 0; i < {s.times}; i++) {{")
            lines += [*_body(program, s.body, depth + 1), f"{tab}}}"]
        else:
            lines.append(f"{tab}{_simple(program, s)};")
    return lines


def _simple(program: ir.Program, s: ir.Statement) -> str:
    if isinstance(s, ir.Lookup):
        return f"v->v{s.var} = bpf_map_lookup_elem(&{s.map}, &(__u32){{{s.key}}})"
    if isinstance(s, ir.Inner):
        inner = f"bpf_map_lookup_elem(&{s.map}, &(__u32){{{s.element}}})"
        return f"v->v{s.var} = look_up_if_there({inner}, {s.key})"
    if isinstance(s, (ir.Load, ir.Store, ir.Atomic)):
        place = f"*(volatile {_WIDTHS[s.size]} *)(v->v{s.var} + {s.at})"
        forms = {ir.Load: f"(void){place}", ir.Store: f"{place} = 1"}
        return forms.get(type(s), f"__sync_fetch_and_add(&{place}, 1)")
    if isinstance(s, ir.Calling):
        name = f"{_NAMES[program.functions[s.function].kind]}_{s.function}"
        if isinstance(s, ir.ForEach):
            return f"bpf_for_each_map_elem(&{s.map}, {name}, v, 0)"
        if isinstance(s, ir.BpfLoop):
            return f"bpf_loop(1000, {name}, v, 0)"
        given = "v, input" if program.functions[s.function].kind == ir.STATIC else ""
        return f"{name}({given})"
    return _SIMPLE[type(s)].format(s=s)


_SIMPLE = {
    ir.Direct: "v->v{s.var} = &{s.map} /* by its address */",
    ir.Value: "v->v{s.var} = value",
    ir.Copy: "v->v{s.var} = v->v{s.of}",
    ir.Clear: "v->v{s.var} = NULL",
    ir.Move: "v->v{s.var} += {s.by}",
    ir.Shift: "v->v{s.var} += input & {s.mask}",
    ir.Lock: "bpf_spin_lock(v->v{s.var} + {s.at})",
    ir.Unlock: "bpf_spin_unlock(v->v{s.var} + {s.at})",
    ir.Pass: "bpf_map_update_elem(&plain, &(__u32){{0}}, v->v{s.var} + {s.at}, 0)",
    ir.Helper: "((long (*)(void)){s.number})()",
    ir.LoadAbsolute: 'asm volatile("r6 = %0; r0 = *(u32 *)skb[0]" :: "r"(ctx))',
    ir.Exit: "return 0",
}

"""Python state that a traced function changes and reads: every container, by every way, over several calls.

A row is (setting, body of f(x, a), what happens between calls). Results, state, identity of objects and what the
caller got earlier must be what they are without compiling. All rows share a few kernels.
"""

import array
import collections
import linecache

import duograd as dg
import numpy as np
import pytest

ROWS = {
    "append_len": ("m.l=[]", "m.l.append(x)\nreturn len(m.l)"),
    "append_last": ("m.l=[]", "m.l.append(x)\nreturn m.l[-1]*1"),
    "append_item0": ("m.l=[]", "m.l.append(x)\nreturn m.l[0]*1"),
    "append_if_len": ("m.l=[]", "m.l.append(x)\nif len(m.l)<2: m.l.append(5)\nreturn x+len(m.l)"),
    "append_truth": ("m.l=[]", "r = 1 if m.l else 0\nm.l.append(x)\nr2 = 1 if m.l else 0\nreturn r, r2"),
    "append_not": ("m.l=[]", "r = not m.l\nm.l.append(1)\nreturn r, not m.l, bool(m.l)"),
    "append_iter": ("m.l=[1.0]", "m.l.append(2.0)\nreturn sum([v for v in m.l]), x*1"),
    "append_iter_t": ("m.l=[]", "m.l.append(x)\nreturn sum(m.l)"),
    "append_slice": ("m.l=[1]", "m.l.append(x)\nreturn m.l[:1], m.l[-1:]"),
    "append_in": ("m.l=[1]", "m.l.append(len(m.l))\nreturn 2 in m.l, 7 in m.l"),
    "append_count": ("m.l=[1]", "m.l.append(1)\nreturn m.l.count(1), m.l.index(1)"),
    "extend_len": ("m.l=[]", "m.l.extend([x, 1])\nreturn len(m.l)"),
    "iadd": ("m.l=[]", "m.l += [x, 2]\nreturn len(m.l)"),
    "iadd_local": ("m.l=[]", "l = m.l\nl += [x, 2]\nreturn len(m.l)"),
    "imul": ("m.l=[1]", "m.l *= 2\nreturn len(m.l)"),
    "insert": ("m.l=[1,2,3]", "m.l.insert(0, x)\nreturn len(m.l), m.l[1]"),
    "pop": ("m.l=[1,2,3]", "v = m.l.pop() if m.l else 7\nreturn v, len(m.l)"),
    "pop0": ("m.l=[1,2,3]", "m.l.append(m.l.pop(0))\nreturn m.l[0]"),
    "append_pop": ("m.l=[1,2,3]", "m.l.append(x)\ny = m.l.pop()\nreturn y*2, len(m.l)"),
    "remove": ("m.l=[3,1,2,3]", "if 3 in m.l: m.l.remove(3)\nreturn len(m.l)"),
    "clear": ("m.l=[1,2,3]", "m.l.append(x)\nm.l.clear()\nm.l.append(4)\nreturn m.l[0], len(m.l)"),
    "sort": ("m.l=[3,1,2]", "m.l.sort()\nr=m.l[0]\nm.l.append(r-2)\nreturn r"),
    "reverse": ("m.l=[1,2,3]", "m.l.reverse()\nreturn m.l[0]"),
    "del0": ("m.l=[1,2,3]", "if len(m.l): \n    del m.l[0]\nreturn len(m.l)"),
    "del0_nolen": ("m.l=[1,2,3,4,5,6,7,8,9]", "del m.l[0]\nreturn x*1"),
    "del0_item": ("m.l=[1,2,3,4,5,6,7,8,9]", "del m.l[0]\nreturn x*m.l[0]"),
    "del_slice": ("m.l=list(range(20))", "del m.l[1:3]\nreturn x*m.l[1]"),
    "set_slice": ("m.l=[1,2,3]", "m.l[1:2] = [x, 5, 6]\nreturn len(m.l)"),
    "setitem": ("m.l=[1,2,3]", "m.l[0] = m.l[0] + 1\nreturn m.l[0], m.l[-1]"),
    "setitem_neg": ("m.l=[1,2,3]", "m.l[-1] = m.l[2] + 1\nreturn m.l[2], m.l[-1]"),
    "setitem_t": ("m.l=[dg.ones((2,)), 3]", "m.l[0] = m.l[0] + x\nreturn m.l[0]*1"),
    "setitem_t2": ("m.l=[dg.ones((2,)), 3]", "m.l[-2] = m.l[0] + x\nreturn m.l[0]*1"),
    "append_setitem": ("m.l=[1]", "m.l.append(2)\nm.l[-1] = 9\nreturn len(m.l), m.l[-1], m.l[0]"),
    "setitem_append": ("m.l=[1]", "m.l[0] += 1\nm.l.append(2)\nreturn len(m.l), m.l[-1], m.l[0]"),
    "unbound_append": ("m.l=[1]", "list.append(m.l, x)\nreturn len(m.l)"),
    "bound_outside": ("m.l=[]\nm.push=m.l.append", "m.push(x)\nreturn x*2"),
    "bound_outside_py": ("m.l=[]\nm.push=m.l.append", "m.push(3)\nreturn x*len(m.l)"),
    "bound_outside_py2": ("m.l=[]\nm.push=m.l.append", "m.push(3)\nreturn x*2"),
    "bound_pop": ("m.l=list(range(9))\nm.take=m.l.pop", "return x*m.take()"),
    "map_append": ("m.l=[]", "list(map(m.l.append, [1,x]))\nreturn len(m.l)"),
    "heapq": ("import heapq\nm.h=heapq\nm.l=[3,5]", "m.h.heappush(m.l, len(m.l))\nreturn m.l[0]"),
    "nested_list": ("m.l=[[],[]]", "m.l[0].append(x)\nreturn len(m.l[0]), len(m.l[1])"),
    "nested_dict_list": ("m.d={'a':[]}", "m.d['a'].append(x)\nreturn len(m.d['a'])"),
    "nested_setdefault": ("m.d={}", "m.d.setdefault('a',[]).append(x)\nreturn len(m.d['a'])"),
    "nested_setdefault2": ("m.d={}", "m.d.setdefault('a',[]).append(3)\nreturn x*1"),
    "defaultdict": ("m.d=collections.defaultdict(list)", "m.d['a'].append(3)\nreturn len(m.d['a'])"),
    "defaultdict_t": ("m.d=collections.defaultdict(list)", "m.d['a'].append(x)\nreturn len(m.d['a'])"),
    "defaultdict_int": ("m.d=collections.defaultdict(int)", "m.d['a'] += 1\nreturn m.d['a'], len(m.d)"),
    "counter": ("m.d=collections.Counter()", "m.d['a'] += 1\nm.d.update('ab')\nreturn m.d['a'], len(m.d)"),
    "ordered": ("m.d=collections.OrderedDict(a=1,b=2)", "m.d.move_to_end('a')\nreturn list(m.d), x*1"),
    "ordered_pop": (
        "m.d=collections.OrderedDict(a=1,b=2)",
        "k, v = m.d.popitem(False)\nm.d[k] = v + 1\nreturn list(m.d), v",
    ),
    "dict_set_len": ("m.d={}", "m.d[len(m.d)] = x\nreturn len(m.d)"),
    "dict_set_get": ("m.d={'h': dg.zeros((2,))}", "m.d['h'] = m.d['h'] + x\nreturn m.d['h'] * 1"),
    "dict_set_len2": ("m.d={}", "m.d['a'] = x\nreturn len(m.d)"),
    "dict_set_len3": (
        "m.d={}",
        "m.d['a'] = 1\nreturn len(m.d)",
        "m.d.pop('a', None) if i == 1 else m.d.update(b=1)",
    ),
    "dict_set_in": (
        "m.d={}",
        "r = 'a' in m.d\nm.d['a'] = x\nreturn r, 'a' in m.d, 'b' in m.d",
        "m.d.pop('a', None) if i == 1 else m.d.update(b=1)",
    ),
    "dict_set_in2": (
        "m.d={}",
        "m.d['a'] = x\nreturn 'a' in m.d, 'b' in m.d",
        "m.d.pop('a', None) if i == 1 else m.d.update(b=1)",
    ),
    "dict_iter": (
        "m.d={'a':1}",
        "m.d['b'] = 2\nreturn [k for k in m.d], list(m.d.values()), list(m.d.items())",
        "m.d.pop('a', None) if i == 1 else m.d.update(c=1)",
    ),
    "dict_iter_t": (
        "m.d={'a':1}",
        "m.d['b'] = x\nreturn [k for k in m.d], len(list(m.d.values()))",
        "m.d.pop('a', None) if i == 1 else m.d.update(c=1)",
    ),
    "dict_del": ("m.d={'a':1,'b':2}", "del m.d['a']\nreturn x*1", "m.d.update(a=i)"),
    "dict_del_len": (
        "m.d={'a':1,'b':2}",
        "if 'a' in m.d:\n    del m.d['a']\nreturn len(m.d), list(m.d)",
        "m.d.update(a=i)",
    ),
    "dict_del_set": (
        "m.d={'a':1,'b':2}",
        "del m.d['a']\nm.d['a'] = 5\nreturn x*1",
        "m.d.pop('b', None)\nm.d.update(b=i)",
    ),
    "dict_pop": (
        "m.d={'a':1,'b':2}",
        "v = m.d.pop('a', 0)\nreturn v, len(m.d)",
        "m.d.update(a=i) if i==2 else 0",
    ),
    "dict_update": ("m.d={'a':1}", "m.d.update(b=x, c=3)\nreturn len(m.d)", "m.d.pop('b')"),
    "dict_ior": ("m.d={'a':1}", "m.d |= {'b': 2}\nreturn len(m.d)", "m.d.update(c=1)"),
    "dict_truth": ("m.d={}", "r = bool(m.d)\nm.d['a'] = x\nreturn r, 1 if m.d else 0"),
    "dict_get": ("m.d={}", "m.d['n'] = m.d.get('n', 0) + 1\nreturn m.d['n'], m.d.get('zz', 3)"),
    "dict_get_t": ("m.d={}", "h = m.d.get('h')\nm.d['h'] = x if h is None else h + x\nreturn m.d['h'] * 2"),
    "dict_view": (
        "m.d={'a':1}\nm.k=m.d.keys()",
        "m.d['b']=1\nreturn len(m.k), x*1",
        "m.d.update({str(i):1})",
    ),
    "dict_view2": ("m.d={'a':1}\nm.k=m.d.keys()", "return x*len(m.k)", "m.d.update({str(i):1})"),
    "dict_view3": ("m.d={'a':1}\nm.k=m.d.values()", "return x*sum(m.k)", "m.d.update({str(i):1})"),
    "dict_view4": ("m.d={'a':1}\nm.k=m.d.keys()", "return x*('2' in m.k)", "m.d.update({str(i):1})"),
    "set_add": ("m.s=set()", "m.s.add(len(m.s))\nreturn len(m.s), 2 in m.s, 9 in m.s"),
    "set_add2": ("m.s=set()", "m.s.add(4)\nreturn x*1", "m.s.discard(4) if i==1 else m.s.add(i)"),
    "set_iter": (
        "m.s={1}",
        "m.s.add(3)\nreturn sorted(m.s), sum(m.s)",
        "m.s.discard(3) if i==1 else m.s.add(i)",
    ),
    "set_truth": (
        "m.s=set()",
        "r = 1 if m.s else 0\nm.s.add(1)\nr2 = 1 if m.s else 0\nreturn r, r2",
        "m.s.clear() if i == 1 else 0",
    ),
    "set_ior": ("m.s={1}", "m.s |= {len(m.s)+3}\nreturn len(m.s)"),
    "set_discard": ("m.s={1,2,3}", "m.s.discard(len(m.s))\nreturn len(m.s)"),
    "set_pop": ("m.s={1,2,3}", "v = m.s.pop() if m.s else 0\nreturn v"),
    "set_tensor": ("m.s=set()", "m.s.add(x)\nreturn len(m.s)"),
    "set_update": ("m.s={1}", "m.s.update([2, len(m.s)+5])\nreturn len(m.s)"),
    "deque_append": ("m.q=collections.deque(maxlen=2)", "m.q.append(len(m.q))\nreturn len(m.q), m.q[0]"),
    "deque_t": ("m.q=collections.deque(maxlen=2)", "m.q.append(x)\nreturn len(m.q)"),
    "deque_t_sum": ("m.q=collections.deque(maxlen=2)", "m.q.append(x)\nreturn sum(m.q)"),
    "deque_popleft": (
        "m.q=collections.deque([1,2,3,4,5,6])",
        "v = m.q.popleft()\nm.q.append(v+10)\nreturn v, x*1",
    ),
    "deque_rotate": ("m.q=collections.deque([1,2,3])", "m.q.rotate(1)\nreturn m.q[0]"),
    "deque_appendleft": ("m.q=collections.deque([1])", "m.q.appendleft(x)\nreturn len(m.q)"),
    "deque_set": ("m.q=collections.deque([1,2])", "m.q[0] = m.q[0] + 1\nreturn m.q[0]*x"),
    "deque_set2": ("m.q=collections.deque([1,2])", "m.q[0] = 5\nreturn x*1", "m.q.append(1)"),
    "bytearray": ("m.b=bytearray(b'ab')", "m.b.append(99)\nreturn len(m.b)"),
    "bytearray2": ("m.b=bytearray(b'ab')", "m.b[0] += 1\nreturn m.b[0], x*1"),
    "array": (
        "m.b=array.array('d',[1.,2.])",
        "m.b.append(3.)\nreturn len(m.b), x*m.b[0]",
        "m.b.__setitem__(0, i)",
    ),
    "array_set": ("m.b=array.array('d',[1.,2.])", "m.b[0] = m.b[0]*2\nreturn x*m.b[0]"),
    "np_set": ("m.b=np.ones(3)", "m.b[0] += 1\nreturn x*float(m.b[0])"),
    "np_set2": ("m.b=np.ones(3)", "m.b[0] = 4\nreturn x*1", "m.b.fill(i)"),
    "np_iadd": ("m.b=np.ones(3)", "m.b += 1\nreturn x*float(m.b.sum())"),
    "obj_attr": ("m.o=State()\nm.o.n=0", "m.o.n += 1\nreturn x*m.o.n"),
    "obj_new": ("pass", "m.o = State()\nm.o.n = 1\nm.o.l = [x]\nreturn len(m.o.l)", "setattr(m.o,'n',9)"),
    "set_new": ("pass", "m.s = set()\nm.s.add(1)\nreturn len(m.s)", "m.s.add(i+50)"),
    "deque_new": ("pass", "m.q = collections.deque()\nm.q.append(1)\nreturn len(m.q)", "m.q.append(i+50)"),
    "list_new": ("pass", "m.l = []\nm.l.append(x)\nreturn len(m.l)", "m.l.append(3)"),
    "list_new_in": (
        "m.d={}",
        "m.d['k'] = [1]\nm.d['k'].append(2)\nreturn len(m.d['k'])",
        "m.d['k'].append(3)",
    ),
    "dict_new": ("pass", "m.d = {'a': x}\nm.d['b'] = 2\nreturn len(m.d)", "m.d.clear()"),
    "ret_set": ("pass", "return x*1, {1,2}", "out[0][1].add(7)"),
    "ret_deque": ("pass", "return x*1, collections.deque([1])", "out[0][1].append(7)"),
    "ret_obj": ("pass", "o = State()\no.n = 1\nreturn x*1, o", "setattr(out[0][1],'n',9)"),
    "ret_list": ("m.l=[1]", "return x*1, m.l", "out[0][1].append(i)"),
    "ret_list_same": ("m.l=[1]", "return x*1, m.l", "m.same = out[-1][1] is m.l"),
    "ret_nested_same": (
        "m.l=[[1], x0]",
        "return x*1, m.l",
        "m.same = (out[-1][1] is m.l, out[-1][1][0] is m.l[0])",
    ),
    "ret_dict_same": ("m.d={'a':[1]}", "return m.d, x*1", "m.same = out[-1][0] is m.d"),
    "ret_grown_same": ("m.l=[]", "m.l.append(x)\nreturn m.l", "m.same = out[-1] is m.l"),
    "store_same": ("m.l=[1]\nm.k=None", "m.k = m.l\nreturn x*1", "m.l.append(i); m.same = m.k is m.l"),
    "store_same_d": (
        "m.l=[1]\nm.d={}",
        "m.d['q'] = m.l\nreturn x*1",
        "m.l.append(i); m.same = m.d['q'] is m.l",
    ),
    "append_same": (
        "m.l=[1]\nm.k=[]",
        "m.k.append(m.l)\nreturn x*1",
        "m.l.append(i); m.same = m.k[-1] is m.l",
    ),
    "swap": ("m.a=[1]\nm.b=[2,3]", "m.a, m.b = m.b, m.a\nreturn len(m.a)", "m.a.append(i)"),
    "self_ref": ("m.l=[]\nm.l.append(m.l)", "return len(m.l), x*1", "m.l.append(1)"),
    "arg_list": ("a=[1]", "a.append(len(a))\nreturn len(a)", "a.append(5) if i==1 else 0"),
    "arg_dict_t": ("a={}", "a['k']=x\nreturn len(a)", "a.update(z=2)"),
    "arg_ordered": ("a=collections.OrderedDict(k=1)", "a['k'] = a['k']*2\nreturn x*a['k']", "a.update(k=i)"),
    "arg_ordered_read": ("a=collections.OrderedDict(k=1)", "return x*a['k']", "a.update(k=i)"),
    "arg_defaultdict": ("a=collections.defaultdict(int)", "a['k'] += 1\nreturn x*a['k']", "a.update(k=i)"),
    "arg_listsub": ("class ML(list): pass\na=ML([1,2])", "return x*a[0]", "a.__setitem__(0,i)"),
    "arg_listsub_len": ("class ML(list): pass\na=ML([1,2])", "a.append(3)\nreturn x*len(a)"),
    "arg_dictsub": ("class MD(dict): pass\na=MD(k=1)", "a['j']=len(a)\nreturn x*a['k']", "a.update(k=i)"),
    "arg_memory_view": (
        "a=memoryview(bytearray(b'ab'))",
        "a[0] += 1\nreturn x*a[1], bytes(a)",
        "a[1] = i + 50",
    ),
    "arg_set": ("a={1}", "a.add(len(a)+1)\nreturn x*len(a)"),
    "arg_deque": ("a=collections.deque([1])", "a.append(len(a)+1)\nreturn x*len(a)"),
    "arg_nested": (
        "a=[[1],{'q':[2]}]",
        "a[0].append(len(a[1]['q']))\na[1]['q'].append(x)\nreturn len(a[0])+len(a[1]['q'])",
    ),
    "arg_tuple_list": ("a=([1],2)", "a[0].append(2)\nreturn len(a[0])*x"),
    "arg_state": ("a=State()\na.l=[]", "a.l.append(x)\nreturn len(a.l)*1"),
    "zip_lists": (
        "m.a=[1,2]\nm.b=[3,4]",
        "m.a.append(5)\nreturn [p*q for p,q in zip(m.a,m.b)], x*1",
        "m.b.append(i)",
    ),
    "enumerate": ("m.a=[1,2]", "m.a.append(x)\nreturn [k for k,_ in enumerate(m.a)]"),
    "star": ("m.a=[1,2]", "m.a.append(3)\nreturn [*m.a], x*1"),
    "starcall": ("m.a=[1,2]", "m.a.append(3)\nreturn max(*m.a), x*1", "m.a.append(i*10)"),
    "dstar": ("m.d=dict(a=1)", "m.d['b']=2\nreturn dict(**m.d), x*1", "m.d.update(c=i)"),
    "unpack": ("m.a=[1]", "m.a.append(3)\na, *b = m.a\nreturn a, b, x*1", "m.a.append(i*10)"),
    "eq": ("m.a=[1]", "m.a.append(1)\nreturn m.a == [1,1], x*1"),
    "add": ("m.a=[1]", "m.a.append(1)\nreturn m.a + [2], x*1"),
    "fstring": ("m.a=[1]", "m.a.append(1)\nreturn f'{m.a}', x*1"),
    "repr": ("m.a=[1]", "m.a.append(1)\nreturn repr(m.a), str(m.a), x*1"),
    "copy": ("m.a=[1]", "m.a.append(1)\nb = m.a.copy()\nb.append(4)\nreturn b, len(b), x*1"),
    "listcopy": ("m.a=[1]", "b = list(m.a)\nm.a.append(1)\nreturn b, len(b), x*1"),
    "json": ("import json\nm.j=json\nm.a=[1]", "m.a.append(1)\nreturn m.j.dumps(m.a), x*1"),
    "sorted_key": ("m.a=[3,1]", "m.a.append(2)\nreturn sorted(m.a, key=lambda v: -v), x*1"),
    "any_all": ("m.a=[0]", "m.a.append(0)\nreturn any(m.a), all(m.a), x*1", "m.a.append(i)"),
    "match": (
        "m.a=[1]",
        (
            "m.a.append(2)\n"
            "match m.a:\n"
            "    case [1,2]: r=1\n"
            "    case [_, *rest]: r=len(rest)+5\n"
            "    case _: r=0\n"
            "return r, x*1"
        ),
    ),
    "inner_fn": ("m.a=[1]\ndef add(v): m.a.append(v)\nm.add=add", "m.add(x)\nreturn len(m.a)"),
    "closure_cell_list": (
        "def mk():\n    l=[]\n    def g(v):\n        l.append(v)\n        return len(l)\n    return g\nm.g=mk()",
        "return m.g(x)",
    ),
    "default_list": ("def g(v, l=[]):\n    l.append(v)\n    return len(l)\nm.g=g", "return m.g(x)"),
    "class_list": ("class C:\n    items=[]\nm.c=C()", "m.c.items.append(x)\nreturn len(m.c.items)"),
    "global_list": ("global GL\nGL=[]", "GL.append(x)\nreturn len(GL)"),
    "property_list": (
        "class C:\n    def __init__(s): s._l=[]\n    @property\n    def items(s): return s._l\nm.c=C()",
        "m.c.items.append(x)\nreturn len(m.c.items)",
    ),
    "method_list": (
        (
            "class C:\n"
            "    def __init__(s): s._l=[]\n"
            "    def add(s,v): s._l.append(v)\n"
            "    def __len__(s): return len(s._l)\n"
            "    def __iter__(s): return iter(s._l)\n"
            "    def __contains__(s,v): return v in s._l\n"
            "    def __getitem__(s,k): return s._l[k]\n"
            "m.c=C()"
        ),
        "m.c.add(x)\nm.c.add(2)\nreturn len(m.c), x in m.c._l[:0], m.c[1], bool(m.c)",
    ),
    "slots": (
        "class C:\n    __slots__=('l',)\n    def __init__(s): s.l=[]\nm.c=C()",
        "m.c.l.append(1)\nreturn len(m.c.l), x*1",
    ),
    "inherit_list": ("class C(list): pass\nm.c=C()", "m.c.append(1)\nreturn len(m.c), x*1"),
    "inherit_list_hook": (
        "class C(list):\n    def append(s,v):\n        super().append(v); super().append(v)\nm.c=C()",
        "m.c.append(1)\nreturn len(m.c), x*1",
    ),
    "inherit_dict_hook": (
        (
            "class C(dict):\n"
            "    def __setitem__(s,k,v):\n"
            "        super().__setitem__(k,v); super().__setitem__(k+'2',v)\n"
            "m.c=C()"
        ),
        "m.c['a']=1\nreturn len(m.c), x*1",
    ),
    "userlist": ("m.c=collections.UserList([1])", "m.c.append(1)\nreturn len(m.c), x*1"),
    "userdict": ("m.c=collections.UserDict(a=1)", "m.c['b']=len(m.c)\nreturn len(m.c), m.c['b'], x*1"),
    "chainmap": ("m.c=collections.ChainMap({},{'a':1})", "m.c['a']=m.c['a']+1\nreturn m.c['a'], x*1"),
    "userlist_read_by_others": (
        "import statistics\nm.s=statistics\nm.c=collections.UserList([1.0])",
        "return x*m.s.mean(m.c)",
        "m.c.append(i)",
    ),
    "userdict_len_live": (
        "m.n=0\nm.c=collections.UserDict(a=1)",
        "m.n += 1\nreturn x*m.n, len(m.c)",
        "m.c.update({i: i}) if i > 2 else 0",
    ),
    "default_factory": (
        "m.d=collections.defaultdict(list)",
        "v = m.d['a']\nreturn x*len(v) if v == [] else x*v",
        "m.d.default_factory = float if i else int; m.d.clear()",
    ),
    "no_default_factory": (
        "m.d=collections.defaultdict(int)",
        "m.d['a'] += 1\nreturn x*m.d['a']",
        "m.d.default_factory = None if i < 3 else float; m.d.clear() if i else 0",
    ),
    "default_factory_copied": (
        "m.d=collections.defaultdict(int, a=1)",
        "return m.d.copy(), m.d | {'b': 2}, x*1",
        "m.d.default_factory = list",
    ),
    "attribute_after_elements": (
        "class ML(list): pass\nm.l=ML([1.0, 2.0])\nm.l.k=2.0",
        "return x*sum(m.l)*m.l.k",
        "m.l.k += 1",
    ),
    "same_value_written_to_an_array": ("m.a=np.arange(3.0)", "m.a[0] = 0.0\nreturn x*1", "m.a[0] = i"),
    "same_value_written_to_bytes": ("m.b=bytearray(3)", "m.b[0] = 0\nreturn x*1", "m.b[0] = i"),
    "same_value_written_to_numbers": (
        "m.b=array.array('d', [0, 1])",
        "m.b[0] = 0.0\nreturn x*1",
        "m.b[0] = i",
    ),
    "same_object_written_to_a_deque": (
        "m.d=collections.deque([None, 1])",
        "m.d[0] = None\nreturn x*1",
        "m.d[0] = i",
    ),
    "dict_in_itself_beside_a_number": ("m.d={}\nm.n=0", "m.n += 1\nm.d['d'] = m.d\nreturn x*m.n"),
    "list_in_itself_beside_a_number": ("m.l=[1]\nm.n=0", "m.n += 1\nm.l[0] = m.l\nreturn x*m.n"),
    "list_of_a_class_by_type": (
        "class C: l = []\nC.__module__='state_rows'\nm.o=C()\nm.seen=C.l",
        "type(m.o).l.append(x)\nreturn x*len(type(m.o).l)",
        "m.o.l = []",
    ),
    "list_of_a_class_by_its_object": (
        "class C: l = []\nC.__module__='state_rows'\nm.o=C()\nm.seen=C.l",
        "m.o.__class__.l.append(x)\nreturn x*len(m.o.__class__.l)",
        "m.o.l = []",
    ),
    "array_of_another_shape": (
        "m.a=np.arange(6.0)",
        "m.a.shape = 2, 3\nreturn x*m.a[1, 0], m.a.shape",
        "m.a.shape = 3, 2",
    ),
    "array_resized": ("m.a=np.arange(2.0)", "m.a.resize(len(m.a)+1, refcheck=False)\nreturn x*len(m.a)"),
    "array_flags": (
        "m.a=np.arange(2.0)",
        "m.a.setflags(write=False)\nreturn x*1",
        "m.a.setflags(write=True)",
    ),
    "tensor_of_a_made_array": (
        "m.k=0",
        "b = np.ones(2, 'f4')\nv = dg.asarray(b)\ny = v*x\nb[0] = 5\nreturn y, v*x",
    ),
    "tensor_of_a_made_array_written": (
        "m.k=0",
        "b = np.ones(2, 'f4')\nv = dg.asarray(b)\nv += x\nreturn float(b.sum()), v*1",
    ),
    "tensor_of_a_made_array_returned": (
        "m.k=0",
        "return dg.asarray(np.ones(2, 'f4')), x*1",
        "out[-1][0][0] = 9; m.k = out[-1][0] is out[0][0]",
    ),
    "tensor_of_a_made_array_kept": (
        "m.a=np.ones(2, 'f4')",
        "m.v = dg.asarray(m.a)[1:]\nreturn x*1",
        "m.a += 1; m.v += 1",
    ),
    "memory_view": (
        "m.b=bytearray(b'abcd')\nm.v=memoryview(m.b)",
        "m.v[0] += 1\nreturn x*m.v[1], m.v.tobytes(), list(m.v[1:3]), len(m.v)",
        "m.b[1] = i + 50",
    ),
    "memory_view_of_numbers": (
        "m.b=bytearray(8)\nm.v=memoryview(m.b).cast('f')\nm.a=array.array('d', [1, 2])\nm.w=memoryview(m.a)",
        "m.v[0] += 1\nm.w[0] *= 2\nreturn x*m.v[1], m.w.tolist()",
        "m.v[1] = i; m.a[1] = i",
    ),
    "memory_view_of_an_array": (
        "m.a=np.zeros(3)\nm.v=memoryview(m.a)",
        "m.v[0] = m.v[1]+1\nreturn x*m.v[2]",
        "m.a[1:] = i",
    ),
    "array_of_objects_read": (
        "m.a=np.array([x0, [1.0]], object)",
        "m.a[1].append(2)\nreturn x*m.a[0], len(m.a[1])",
        "m.a[0] = m.a[0]+i",
    ),
    "array_of_objects_written": ("m.a=np.empty(2, object)", "m.a[0] = x*2\nreturn x*1", "m.k = m.a[0]"),
    "array_of_objects_added": ("m.a=np.array([x0], object)", "m.a[0] = m.a[0]+x\nreturn x*1", "m.k = m.a[0]"),
    "array_of_a_class": (
        "class A(np.ndarray): k=2.0\nm.a=np.arange(3.0).view(A)",
        "return x*float(m.a[1])*m.a.k, getattr(m.a, 'n', 0)",
        "m.a.k = 3.0 + i//2; m.a.n = i//2",
    ),
    "array_of_fields": (
        "m.a=np.zeros(2, [('u', 'f4'), ('v', 'i4')])",
        "m.a['u'] += 1\nm.a[1]['v'] = m.a['v'][0]\nreturn x*float(m.a['u'][1]), m.a[1]['v']",
        "m.a['v'][0] = i",
    ),
    "parameter_of_a_class": (
        "class P(dg.nn.Parameter): k=1.0\nm.w=P(x0)",
        "return x*m.w*m.w.k, getattr(m.w, 'n', 0)",
        "m.w.k = 3.0 + i//2; m.w.n = i//2",
    ),
    "may_be_written": (
        "m.a=np.arange(3.0)",
        "return x*m.a[1], m.a.flags.writeable",
        "m.a.setflags(write=i%2 == 0)",
    ),
    "memory_of_a_tensor": ("m.w=dg.ones((2,))", "m.n = m.w.numpy()\nreturn x*float(m.n[0])", "m.w += 1"),
    "memory_of_an_argument": (
        "a=dg.ones((2,))",
        "m.n = a.numpy()\nreturn x*float(m.n[0])",
        "a += 1; m.k = m.n.copy()",
    ),
    "memory_of_a_result": (
        "m.k=0",
        "y = x*2\nreturn y, y[1:].numpy()",
        "out[-1][1][0] = 9; m.k = out[-1][0]*1",
    ),
    "partial_list": (
        "import functools\nm.l=[]\nm.p=functools.partial(m.l.append, 4)",
        "m.p()\nreturn len(m.l), x*1",
    ),
    "dict_dunder": ("m.d={}", "m.__dict__['n'] = m.__dict__.get('n',0)+1\nreturn m.n, x*1"),
    "setattr": ("m.n=0", "setattr(m,'n',getattr(m,'n')+1)\nreturn m.n, vars(m)['n'], x*1"),
    "delattr": ("m.n=0", "if hasattr(m,'n'): del m.n\nelse: m.n = 4\nreturn hasattr(m,'n'), x*1"),
    "str_grow": ("m.t=''", "m.t += 'a'\nreturn len(m.t), x*1"),
    "tuple_grow": ("m.t=()", "m.t = (*m.t, x)\nreturn len(m.t)"),
    "tuple_grow_py": ("m.t=()", "m.t = m.t + (1,)\nreturn len(m.t), x*1"),
    "list_replace": ("m.l=[]", "m.l = m.l + [x]\nreturn len(m.l)"),
    "list_window": ("m.l=[]", "m.l = (m.l + [x])[-2:]\nreturn sum(m.l)"),
    "weakset": ("import weakref\nm.w=weakref.WeakSet()\nm.o=State()", "m.w.add(m.o)\nreturn len(m.w), x*1"),
    "branch_between": ("m.l=[]", "m.l.append(x)\nif x.sum() > 0: m.l.append(1)\nreturn len(m.l)"),
    "branch_between2": (
        "m.l=[]\nm.d={}",
        "m.d['a']=len(m.l)\nif x.sum() > 0: m.l.append(m.d['a'])\nreturn len(m.l), m.d['a']",
    ),
    "exception": (
        "m.l=[]",
        (
            "m.l.append(x)\n"
            "try:\n"
            "    m.l.append(1)\n"
            "    m.l[10]\n"
            "except IndexError:\n"
            "    m.l.append(3)\n"
            "return len(m.l)"
        ),
    ),
    "del_name": ("m.l=[1,2]", "l = m.l\ndel l[-1:]\nreturn len(m.l), x*1"),
    "walrus": ("m.l=[1]", "if (n := len(m.l)) < 3: m.l.append(n)\nreturn n, x*1"),
    "list_eq_two": (
        "m.a=[1]\nm.b=[1]",
        "m.a.append(2)\nr = m.a == m.b\nm.b.append(2)\nreturn r, m.a == m.b, x*1",
    ),
    "dict_of_obj": ("m.d={'o':State()}\nm.d['o'].n=0", "m.d['o'].n += 1\nreturn m.d['o'].n, x*1"),
    "list_of_obj": (
        "m.l=[State(), State()]\nfor o in m.l: o.n=0",
        "for o in m.l: o.n += 1\nreturn sum(o.n for o in m.l), x*1",
    ),
    "list_of_obj_index": (
        "m.l=[State(), State()]\nfor o in m.l: o.n=0",
        "m.l[1].n += 1\nm.l.append(1)\nreturn m.l[1].n, x*1",
    ),
    "list_of_list_iter": (
        "m.l=[[1],[2]]",
        "for r in m.l: r.append(len(r))\nreturn [len(r) for r in m.l], x*1",
    ),
    "nest_append": (
        "m.l=[[]]",
        "m.l.append([])\nm.l[-1].append(1)\nm.l[0].append(2)\nreturn [len(r) for r in m.l], x*1",
    ),
    "frozen": ("m.f=frozenset({1})", "m.f = m.f | {len(m.f)}\nreturn len(m.f), x*1"),
    "aug_item": ("m.d={'a':[1]}", "m.d['a'] += [2]\nreturn len(m.d['a']), x*1"),
    "aug_item_t": ("m.d={'a':[1]}", "m.d['a'] += [x]\nreturn len(m.d['a'])"),
    "alias_lists": ("m.a=[1]\nm.b=m.a", "m.a.append(2)\nreturn len(m.b), m.b[-1], x*1"),
    "alias_lists_t": ("m.a=[1]\nm.b=m.a", "m.a.append(x)\nreturn len(m.b)"),
    "local_alias": ("m.a=[1]", "q = m.a\nq.append(x)\nreturn len(q), q is m.a"),
    "zip_dict": ("m.d={'a':1}", "for k, v in list(m.d.items()): m.d[k+'x'] = v+1\nreturn len(m.d), x*1"),
    "reversed": ("m.l=[1]", "m.l.append(len(m.l)+1)\nreturn list(reversed(m.l)), x*1"),
    "del_all": ("m.l=[1,2]", "del m.l[:]\nm.l.append(3)\nreturn len(m.l), x*1", "m.l.append(i)"),
    "slice_assign_all": ("m.l=[1,2]", "m.l[:] = [x]\nreturn len(m.l)", "m.l.append(i)"),
    "negative_after": ("m.l=[1,2]", "m.l.append(9)\nreturn m.l[-2], m.l[-3], x*1", "m.l.append(i)"),
    "index_var": (
        "m.l=[1,2]",
        "for k in range(2):\n    m.l.append(k)\nreturn [m.l[k] for k in range(3)], x*1",
        "m.l.insert(0,i)",
    ),
    "pop_index": ("m.l=list(range(30))", "return x*m.l.pop(len(m.l)//2)"),
}

#: iterators of C code stand elsewhere at every call, and cannot be set back
LEFT = {
    "iterator": ("m.it=iter(range(100))", "return x*next(m.it)"),
    "gen_state": ("m.g=(k for k in range(100))", "return x*next(m.g)"),
    "count": ("import itertools\nm.c=itertools.count()", "return x*next(m.c)"),
    "iter_list": ("m.l=[1,2,3,4,5,6,7]\nm.it=iter(m.l)", "return x*next(m.it)"),
}


class State:
    pass


def seen(x, inside=()):
    """A value as plain data, with the types of all that it holds."""
    if id(x) in inside:
        return "itself"
    inside = (*inside, id(x))
    kind = type(x).__name__
    if isinstance(x, dg.Tensor):
        return kind, np.array(x._array()).tolist()
    if isinstance(x, np.ndarray):
        return kind, [seen(v, inside) for v in x.flat] if x.dtype.hasobject else x.tolist()
    if isinstance(x, collections.defaultdict):
        kind = f"{kind} of {x.default_factory}"
    if isinstance(x, dict):
        return kind, [(seen(k), seen(v, inside)) for k, v in x.items()]
    if isinstance(x, (set, frozenset)):
        return kind, sorted((seen(v, inside) for v in x), key=str)
    if isinstance(x, (list, tuple, collections.deque, bytearray, array.array)):
        return kind, [seen(v, inside) for v in x]
    if x is None or isinstance(x, (int, float, str, bytes)):
        return kind, x
    inner = getattr(x, "__dict__", None)
    if callable(x) or type(x).__module__ != "state_rows" or inner is None:
        return kind
    return kind, [(k, seen(v, inside)) for k, v in inner.items()]


def run(name, setting, body, between="pass", mode="graph", calls=5):
    """What an onlooker sees of some calls of f."""
    lines = ["def f(x, a):", *("    " + line for line in body.split("\n"))]
    file = f"/rows/{name}.py"
    linecache.cache[file] = (0, None, [line + "\n" for line in lines], file)
    State.__module__ = "state_rows"
    space = dict(  # noqa: C408
        dg=dg, np=np, collections=collections, array=array, State=State, m=State(), out=[], a=None, i=0,
        x0=dg.ones((2,)), __name__="state_rows",
    )  # fmt: skip
    exec(setting, space)
    exec(compile("\n".join(lines), file, "exec"), space)
    f = dg.function(space["f"], mode=mode)
    story = []
    for i in range(calls):
        x = dg.tensor([1.0 + i, -0.5 * (i % 3)])
        try:
            out = f(x, space["a"])
        except Exception as e:
            if isinstance(e, dg.errors.TraceError):
                raise
            return [*story, type(e)]
        space["out"].append(out)
        space["i"] = i
        story.append((seen(out), seen(space["m"]), seen(space["a"]), seen(space.get("GL"))))
        exec(between, space)
    return [*story, seen(space["m"]), seen(space["out"])]


@pytest.mark.parametrize("name", ROWS)
def test_state_is_as_without_compiling(name):
    assert run(name, *ROWS[name]) == run(name, *ROWS[name], mode="eager")


@pytest.mark.parametrize("name", LEFT)
def test_iterators_from_outside_are_advanced_as_without_compiling(name):
    assert run(name, *LEFT[name]) == run(name, *LEFT[name], mode="eager")

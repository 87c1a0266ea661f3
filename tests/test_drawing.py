"""Drawn graphs: names are escaped, and each node is to the right of its dependencies."""

from __future__ import annotations

from furu.drawing import DrawnNode, layout, to_dot, to_html, to_mermaid


def test_names_in_a_graph_are_escaped() -> None:
    evil = '</script><script>alert(1)</script>"];\n'
    nodes = [DrawnNode("0" * 32, evil, evil, "TODO", 0, ())]
    assert 2 == to_html(nodes).count("</script>")
    assert "<script>alert" not in to_mermaid(nodes)
    assert '\\"];\\n' in to_dot(nodes)


def test_wide_layer_is_wrapped_and_nodes_are_right_of_their_dependencies() -> None:
    """2,000 nodes that depend on one node are not drawn as one column of 2,000."""
    base = DrawnNode("base", "Base", "", "DONE", 0, ())
    nodes = [base, *(DrawnNode(f"{n}", "Node", "", "DONE", 1, ("base",)) for n in range(2000))]
    places = layout(nodes)
    assert all(places["base"][0] < places[node.key][0] for node in nodes[1:])
    assert 2001 == len(set(places.values()))
    assert max(y for _, y in places.values()) - min(y for _, y in places.values()) < 100

"""A cluster's nodes as a table."""

import time

from rich.table import Table

from infra.launchers.cloud import Node


def nodes_table(cluster: str, nodes: list[Node]) -> Table:
    table = Table(title=f"{cluster}: {len(nodes)} node{'' if len(nodes) == 1 else 's'}", title_justify="left")
    for column in ("node", "is", "type", "market", "state", "age", "address"):
        table.add_column(column, overflow="fold")
    for node in nodes:
        age = "" if node.started is None else duration(time.time() - node.started)
        table.add_row(node.name, node.kind, node.node_type, node.market, node.state, age, node.address)
    return table


def duration(seconds: float) -> str:
    """Of a node's life, as long as it is short: 7 min, 3 h 20 min, 2 d 3 h."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"

"""The records and their fields. A new field is one entry here; `make generate` carries it everywhere else.

Deadbands are what keeps an idle host quiet: they stand where the noise of a reading tells nobody anything.
"""

from functools import cache

from telemetry.fields import (
    EXACT,
    Deadband,
    Field,
    Member,
    ObjectList,
    Owner,
    Record,
    Scalar,
    ScalarList,
    ScalarMap,
    Thresholds,
    Type,
)
from telemetry.units import Unit

_KIB, _MIB = 1024, 1024 * 1024

_RATE = Deadband(absolute=64 * _KIB, relative=0.2)
_MEMORY = Deadband(absolute=64 * _MIB, relative=0.02)
_DISK_SPACE = Deadband(absolute=64 * _MIB, relative=0.001)
_TEMPERATURE = Deadband(absolute=2)
_LOAD = Deadband(absolute=3)

_ANY = Thresholds(warning=1)


def _field(
    owner: Owner,
    name: str,
    type: Type,  # noqa: A002  # the word of the declaration
    unit: Unit,
    english: str,
    chinese: str,
    *,
    deadband: Deadband = EXACT,
    label: str = "",
    thresholds: Thresholds | None = None,
) -> Field:
    return Field(
        name=name, type=type, owner=owner, unit=unit, english=english, chinese=chinese, deadband=deadband, label=label,
        thresholds=thresholds,
    )  # fmt: skip


def _count(name: str, english: str, chinese: str, *, thresholds: Thresholds | None = None) -> Field:
    return _field(Owner.MINER, name, Scalar.INTEGER, Unit.COUNT, english, chinese, thresholds=thresholds)


def _balance(name: str, english: str, chinese: str, *, thresholds: Thresholds | None = None) -> Field:
    return _field(Owner.MINER, name, Scalar.NUMBER, Unit.FIL, english, chinese, thresholds=thresholds)


_MINER_ID = _field(
    Owner.KEY, "minerId", Scalar.STRING, Unit.NONE, "Address of the miner actor, such as f01234.", "矿工 ID"
)

_NET_STATE = _field(
    Owner.AGGREGATOR, "netState", Scalar.STRING, Unit.NONE,
    "Of the agent: online, stale (silent), stopped (on purpose) or lost.", "在线状态", label="state",
)  # fmt: skip
_NET_SINCE = _field(
    Owner.AGGREGATOR, "netSince", Scalar.INTEGER, Unit.UNIX_MILLISECONDS,
    "Since when netState is what it is, by the aggregator's clock.", "状态起始时间",
)  # fmt: skip

_QUEUE_ENTRY = ObjectList(
    members=(
        Member(
            name="callId", type=Scalar.STRING, optional=True,
            english="Call id of the job; absent until it runs.", chinese="调用 ID",
        ),
        Member(name="worker", type=Scalar.STRING, english="Session UUID of the worker.", chinese="工作进程 UUID"),
        Member(name="sector", type=Scalar.INTEGER, english="Sector number.", chinese="扇区号"),
        Member(name="task", type=Scalar.STRING, english="Task type, such as seal/v0/precommit/1.", chinese="任务类型"),
        Member(
            name="taskShort", type=Scalar.STRING, label="task",
            english="Short name of the task, such as PC1.", chinese="任务简称",
        ),
        Member(
            name="state", type=Scalar.STRING, label="state",
            english="running, prepared, assigned or ret-wait.", chinese="任务状态",
        ),
        Member(
            name="start", type=Scalar.INTEGER, unit=Unit.UNIX_MILLISECONDS, optional=True,
            english="When the task began, or began to wait; absent when unknown.", chinese="开始时间",
        ),
        Member(
            name="overdue", type=Scalar.BOOLEAN, optional=True,
            english="True when the task has run longer than its kind usually takes.", chinese="是否超时",
        ),
    )
)  # fmt: skip

_UNASSIGNED_ENTRY = ObjectList(
    members=(
        Member(name="sector", type=Scalar.INTEGER, english="Sector number.", chinese="扇区号"),
        Member(name="task", type=Scalar.STRING, english="Task type, such as seal/v0/precommit/1.", chinese="任务类型"),
        Member(
            name="taskShort", type=Scalar.STRING, label="task",
            english="Short name of the task, such as PC1.", chinese="任务简称",
        ),
        Member(
            name="priority", type=Scalar.INTEGER, optional=True,
            english="The scheduler's priority, higher first.", chinese="优先级",
        ),
    )
)  # fmt: skip

_GPU = ObjectList(
    members=(
        Member(
            name="index", type=Scalar.INTEGER, label="gpu",
            english="Index of the card in NVML's order.", chinese="序号",
        ),
        Member(name="name", type=Scalar.STRING, optional=True, english="Product name.", chinese="型号"),
        Member(name="uuid", type=Scalar.STRING, optional=True, english="UUID that stays with the card.", chinese="UUID"),
        Member(
            name="temper", type=Scalar.INTEGER, unit=Unit.CELSIUS, deadband=_TEMPERATURE, optional=True,
            english="Temperature of the GPU die.", chinese="温度",
        ),
        Member(
            name="load", type=Scalar.INTEGER, unit=Unit.PERCENT, deadband=_LOAD, optional=True,
            english="Share of the time in which a kernel was running.", chinese="利用率",
        ),
        Member(
            name="useMemory", type=Scalar.INTEGER, unit=Unit.BYTES, deadband=_MEMORY, optional=True,
            english="Memory in use.", chinese="已用显存",
        ),
        Member(
            name="totalMemory", type=Scalar.INTEGER, unit=Unit.BYTES, optional=True,
            english="Memory of the card.", chinese="总显存",
        ),
        Member(
            name="power", type=Scalar.NUMBER, unit=Unit.WATTS, deadband=Deadband(absolute=10), optional=True,
            english="Electrical power drawn.", chinese="功耗",
        ),
    )
)  # fmt: skip

_MOUNT = ObjectList(
    members=(
        Member(name="mount", type=Scalar.STRING, label="mount", english="Mount point.", chinese="挂载点"),
        Member(name="device", type=Scalar.STRING, english="Device, or export of a network filesystem.", chinese="设备"),
        Member(name="filesystem", type=Scalar.STRING, english="Type of the filesystem.", chinese="文件系统"),
        Member(name="total", type=Scalar.INTEGER, unit=Unit.BYTES, english="Size.", chinese="总容量"),
        Member(
            name="used", type=Scalar.INTEGER, unit=Unit.BYTES, deadband=_DISK_SPACE,
            english="Space in use, as df counts it.", chinese="已用容量",
        ),
    )
)  # fmt: skip

_INTERFACE = ObjectList(
    members=(
        Member(
            name="interface", type=Scalar.STRING, label="interface",
            english="Name of the network interface.", chinese="网卡",
        ),
        Member(
            name="rx", type=Scalar.INTEGER, unit=Unit.BYTES_PER_SECOND, deadband=_RATE,
            english="Bytes received a second.", chinese="接收速率",
        ),
        Member(
            name="tx", type=Scalar.INTEGER, unit=Unit.BYTES_PER_SECOND, deadband=_RATE,
            english="Bytes sent a second.", chinese="发送速率",
        ),
    )
)  # fmt: skip

MINER_INFO = Record(
    name="minerInfo",
    fields=(
        _MINER_ID,
        _balance("minerBalance", "Balance of the miner actor.", "矿工余额"),
        _balance("workerBalance", "Balance of the worker address.", "Worker 地址余额"),
        _balance("postBalance", "Sum of the addresses that pay for WindowPoSt.", "PoSt 地址余额"),
        _balance("pledgeBalance", "Initial pledge locked for the sectors.", "质押金额"),
        _field(
            Owner.MINER, "effectivePower", Scalar.INTEGER, Unit.BYTES,
            "Quality-adjusted power, which elects blocks.", "有效算力",
        ),
        _count("totalSectors", "Sectors that the miner holds, without removed ones.", "总扇区数"),
        _count("effectiveSectors", "Active sectors on chain.", "有效扇区数"),
        _count("errorSectors", "Faulty sectors on chain, recovering ones among them.", "错误扇区数", thresholds=_ANY),
        _count("recoverySectors", "Sectors declared as recovering.", "恢复中扇区数"),
        _count("deletedSectors", "Sectors removed or being removed.", "已删除扇区数"),
        _count("failSectors", "Sectors whose sealing stands in a failed state.", "失败扇区数", thresholds=_ANY),
        _field(
            Owner.MINER, "expectBlock", Scalar.NUMBER, Unit.WINS_PER_DAY,
            "Expected epochs with a won block a day; 0 when not eligible.", "预期每日出块数",
            deadband=Deadband(relative=0.001),
        ),
        _balance("minerAvailable", "Balance of the miner that can be withdrawn.", "可用余额"),
        _count("preCommitWait", "Sectors waiting for the pre-commit message.", "PreCommit 等待数"),
        _count("commitWait", "Sectors waiting for the commit message.", "Commit 等待数"),
        _count("preCommit1", "Sectors in pre-commit phase 1.", "P1 扇区数"),
        _count("preCommit2", "Sectors in pre-commit phase 2.", "P2 扇区数"),
        _count("waitSeed", "Sectors waiting for the seed.", "等待随机数扇区数"),
        _count("committing", "Sectors computing their commit proof.", "C1/C2 扇区数"),
        _count("finalizeSector", "Sectors being finalized.", "Finalize 扇区数"),
        _field(Owner.MINER, "rawPower", Scalar.INTEGER, Unit.BYTES, "Raw byte power.", "原值算力"),
        _balance("lockedFunds", "Block rewards that are still vesting.", "锁仓奖励"),
        _balance("preCommitDeposits", "Deposits locked for pre-committed sectors.", "预提交保证金"),
        _balance("feeDebt", "Debt of the miner; while there is any it wins no block.", "欠费",
                 thresholds=Thresholds(warning=1e-9)),
        _count("liveSectors", "Sectors on chain that are not terminated.", "链上存活扇区数"),
        _count("unprovenSectors", "Sectors on chain that wait for their first proof.", "待首次证明扇区数"),
        _field(
            Owner.MINER, "sectorStates", ScalarMap(value=Scalar.INTEGER), Unit.COUNT,
            "Sectors by sealing state, under the names of the running Lotus.", "各状态扇区数", label="state",
        ),
        _field(
            Owner.MINER, "unassignedQueue", _UNASSIGNED_ENTRY, Unit.NONE,
            "Requests that the scheduler has given to no worker yet.", "未分配任务队列",
        ),
        _count("unassignedTasks", "Requests without a worker; unassignedQueue has the first 1000.", "未分配任务数"),
        _count("returnedTasks", "Results of workers that lotus-miner has not taken yet.", "待收取结果数"),
        _count("chainHeight", "Height of the chain's head.", "链高度"),
        _field(
            Owner.MINER, "chainLag", Scalar.NUMBER, Unit.SECONDS,
            "Age of the chain's head; a synced node stays below 45 s.", "链头延迟",
            deadband=Deadband(absolute=30), thresholds=Thresholds(warning=90, critical=300),
        ),
        _count("chainBehind", "Epochs that passed since that of the chain's head; a synced node has 0 to 4.", "落后高度",
               thresholds=Thresholds(warning=5, critical=20)),
        _count("deadlineIndex", "Index of the current proving deadline, 0 to 47.", "当前窗口序号"),
        _count("deadlineOpen", "Epoch at which the current deadline opens.", "窗口开始高度"),
        _count("deadlineClose", "Epoch at which the current deadline closes.", "窗口结束高度"),
        _count("deadlinePartitions", "Partitions with live sectors in the current deadline.", "窗口分区数"),
        _count("deadlineProven", "Partitions of the current deadline that are proven.", "窗口已证明分区数"),
        _count("deadlineFaults", "Faulty sectors in the current deadline.", "窗口错误扇区数", thresholds=_ANY),
        _field(Owner.MINER, "lotusState", Scalar.STRING, Unit.NONE, "ok, or why the Lotus cannot be used.", "Lotus 状态",
               label="state"),
        _field(Owner.MINER, "minerVersion", Scalar.STRING, Unit.NONE, "Version of lotus-miner.", "miner 版本",
               label="version"),
        _field(Owner.MINER, "nodeVersion", Scalar.STRING, Unit.NONE, "Version of the full node.", "节点版本",
               label="version"),
        _field(
            Owner.MINER, "minerStart", Scalar.INTEGER, Unit.UNIX_MILLISECONDS, "When lotus-miner was started.",
            "miner 启动时间",
        ),
        _NET_STATE,
        _NET_SINCE,
    ),
)  # fmt: skip


def _hardware(
    name: str, type: Type, unit: Unit, english: str, chinese: str, *, deadband: Deadband = EXACT,  # noqa: A002
    thresholds: Thresholds | None = None,
) -> Field:  # fmt: skip
    return _field(Owner.HARDWARE, name, type, unit, english, chinese, deadband=deadband, thresholds=thresholds)


def _tasks(name: str, type: Type, unit: Unit, english: str, chinese: str, *, label: str = "") -> Field:  # noqa: A002
    return _field(Owner.TASKS, name, type, unit, english, chinese, label=label)


WORKER_INFO = Record(
    name="workerInfo",
    fields=(
        _MINER_ID,
        _field(Owner.KEY, "hostName", Scalar.STRING, Unit.NONE, "Name of the host.", "主机名"),
        _tasks("currentQueue", _QUEUE_ENTRY, Unit.NONE, "Tasks that run on the host.", "当前任务队列"),
        _tasks("pendingQueue", _QUEUE_ENTRY, Unit.NONE, "Tasks assigned to the host that do not run yet.", "等待任务队列"),
        _hardware("cpuTemper", Scalar.NUMBER, Unit.CELSIUS, "Temperature of the hottest CPU package.", "CPU 温度",
                  deadband=_TEMPERATURE, thresholds=Thresholds(warning=85, critical=95)),
        _hardware("cpuLoad", Scalar.NUMBER, Unit.PERCENT, "Share of all CPU time not idle since the last sample.",
                  "CPU 使用率", deadband=_LOAD),
        _hardware("gpuInfo", _GPU, Unit.NONE, "NVIDIA cards, in NVML's order.", "显卡信息"),
        _hardware("totalMemory", Scalar.INTEGER, Unit.BYTES, "Memory of the host.", "总内存"),
        _hardware("useMemory", Scalar.INTEGER, Unit.BYTES, "Memory that is not available, as free counts it.", "已用内存",
                  deadband=_MEMORY),
        _hardware("useDisk", _MOUNT, Unit.NONE, "Real mounts, by mount point.", "磁盘使用"),
        _hardware("diskR", Scalar.INTEGER, Unit.BYTES_PER_SECOND, "Bytes read a second from all disks.", "磁盘读速率",
                  deadband=_RATE),
        _hardware("diskW", Scalar.INTEGER, Unit.BYTES_PER_SECOND, "Bytes written a second to all disks.", "磁盘写速率",
                  deadband=_RATE),
        _hardware("netIO", _INTERFACE, Unit.NONE, "Traffic of the real network interfaces.", "网络流量"),
        _NET_STATE,
        _tasks("taskState", Scalar.STRING, Unit.NONE, "enabled, disabled or unregistered, with the running counts.",
               "任务状态"),
        _tasks("taskType", ScalarList(element=Scalar.STRING), Unit.NONE, "Task types that the host accepts.", "任务类型",
               label="task"),
        _tasks("runningTasks", Scalar.INTEGER, Unit.COUNT, "Tasks that run on the host; currentQueue has the first 400.", "运行任务数"),
        _tasks("pendingTasks", Scalar.INTEGER, Unit.COUNT, "Tasks that wait on the host; pendingQueue has the first 400.", "等待任务数"),
        _hardware("gpuTemper", Scalar.INTEGER, Unit.CELSIUS, "Temperature of the hottest card.", "显卡最高温度",
                  deadband=_TEMPERATURE, thresholds=Thresholds(warning=80, critical=90)),
        _hardware("gpuLoad", Scalar.NUMBER, Unit.PERCENT, "Mean utilisation of the cards.", "显卡平均利用率",
                  deadband=_LOAD),
        _hardware("gpuMemory", Scalar.INTEGER, Unit.BYTES, "Memory in use on all cards.", "显存使用", deadband=_MEMORY),
        _hardware("diskUsedPercent", Scalar.NUMBER, Unit.PERCENT, "Use of the fullest mount, as df counts it.",
                  "最满磁盘使用率", deadband=Deadband(absolute=0.1), thresholds=Thresholds(warning=90, critical=95)),
        _hardware("netRx", Scalar.INTEGER, Unit.BYTES_PER_SECOND, "Bytes received a second on all interfaces.",
                  "网络接收速率", deadband=_RATE),
        _hardware("netTx", Scalar.INTEGER, Unit.BYTES_PER_SECOND, "Bytes sent a second on all interfaces.",
                  "网络发送速率", deadband=_RATE),
        _NET_SINCE,
    ),
)  # fmt: skip

RECORDS = (MINER_INFO, WORKER_INFO)


@cache
def declared(name: str) -> Field | None:
    """A field by its name, of whichever record."""
    return next((record.by_name[name] for record in RECORDS if name in record.by_name), None)

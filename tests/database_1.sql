BEGIN TRANSACTION;
CREATE TABLE "agents" (
   "minerId" TEXT,
   "agent" TEXT,
   "epoch" INTEGER,
   "position" INTEGER,
   "beyond" TEXT,
   "fulls" TEXT,
   "floor" INTEGER,
   "lost" INTEGER,
   "former" TEXT,
   "state" TEXT,
   "since" INTEGER,
   "heard" INTEGER,
   "session" TEXT,
   "version" TEXT,
   "late" INTEGER,
   PRIMARY KEY ("minerId", "agent")
);
INSERT INTO "agents" VALUES('f01234','seal01',7,3,'[[5,6]]','{"miners/f01234/workers/seal01":1}',0,2,'[{"epoch":6,"position":9,"beyond":[],"fulls":{},"floor":0,"lost":1}]','online',1,70,'s','1',4);
CREATE TABLE "events" (
   "id" INTEGER PRIMARY KEY,
   "time" INTEGER,
   "minerId" TEXT,
   "agent" TEXT,
   "event" TEXT,
   "detail" TEXT
);
CREATE TABLE "history" (
   "id" INTEGER PRIMARY KEY,
   "minerId" TEXT,
   "hostName" TEXT,
   "owner" TEXT,
   "epoch" INTEGER,
   "seq" INTEGER,
   "time" INTEGER,
   "received" INTEGER,
   "full" INTEGER,
   "fields" TEXT,
   "gone" TEXT
);
CREATE TABLE [minerInfo] ([minerId] TEXT, [minerBalance] REAL, [workerBalance] REAL, [postBalance] REAL, [pledgeBalance] REAL, [effectivePower] INTEGER, [totalSectors] INTEGER, [effectiveSectors] INTEGER, [errorSectors] INTEGER, [recoverySectors] INTEGER, [deletedSectors] INTEGER, [failSectors] INTEGER, [expectBlock] REAL, [minerAvailable] REAL, [preCommitWait] INTEGER, [commitWait] INTEGER, [preCommit1] INTEGER, [preCommit2] INTEGER, [waitSeed] INTEGER, [committing] INTEGER, [finalizeSector] INTEGER, [rawPower] INTEGER, [lockedFunds] REAL, [preCommitDeposits] REAL, [feeDebt] REAL, [liveSectors] INTEGER, [unprovenSectors] INTEGER, [sectorStates] TEXT, [unassignedQueue] TEXT, [unassignedTasks] INTEGER, [returnedTasks] INTEGER, [chainHeight] INTEGER, [chainLag] REAL, [chainBehind] INTEGER, [deadlineIndex] INTEGER, [deadlineOpen] INTEGER, [deadlineClose] INTEGER, [deadlinePartitions] INTEGER, [deadlineProven] INTEGER, [deadlineFaults] INTEGER, [lotusState] TEXT, [minerVersion] TEXT, [nodeVersion] TEXT, [minerStart] INTEGER, [netState] TEXT, [netSince] INTEGER, [_time] INTEGER, [_state] TEXT, PRIMARY KEY (minerId));
CREATE TABLE "rejected" (
   "id" INTEGER PRIMARY KEY,
   "time" INTEGER,
   "topic" TEXT,
   "reason" TEXT,
   "payload" BLOB
);
CREATE TABLE [workerInfo] ([minerId] TEXT, [hostName] TEXT, [currentQueue] TEXT, [pendingQueue] TEXT, [cpuTemper] REAL, [cpuLoad] REAL, [gpuInfo] TEXT, [totalMemory] INTEGER, [useMemory] INTEGER, [useDisk] TEXT, [diskR] INTEGER, [diskW] INTEGER, [netIO] TEXT, [netState] TEXT, [taskState] TEXT, [taskType] TEXT, [runningTasks] INTEGER, [pendingTasks] INTEGER, [gpuTemper] INTEGER, [gpuLoad] REAL, [gpuMemory] INTEGER, [diskUsedPercent] REAL, [netRx] INTEGER, [netTx] INTEGER, [netSince] INTEGER, [_time] INTEGER, [_state] TEXT, PRIMARY KEY (minerId, hostName));
INSERT INTO "workerInfo" VALUES('f01234','seal01',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,5,NULL,'[{"interface":"eth0","rx":1,"tx":2}]','online','enabled',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,77,'{"held":{"diskR":["hardware",7,3],"cpuLoad":["hardware",7,2],"netIO":["hardware",6,9],"taskState":["tasks",8,4],"netState":["aggregator",0,0],"fanSpeed":["hardware",7,3]},"whole":{"hardware":[7,3]},"unknown":{"fanSpeed":900}}');
COMMIT;
PRAGMA application_id = 1953262969;
PRAGMA user_version = 1;

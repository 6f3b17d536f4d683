/*
 * Rows of a table, one transaction each, of which the last ROWS are kept. With a rollback journal
 * SQLite is told to make the journal's removal durable too: else the last transaction may be rolled
 * back after a failure of power.
 */
#include "cuts.h"

#include <sqlite3.h>
#include <stdio.h>

#define ROWS 100

static sqlite3 *open_in(const char *folder)
{
	char path[256];
	sqlite3 *db = NULL;

	snprintf(path, sizeof(path), "%s/data.db", folder);
	return sqlite3_open(path, &db) == SQLITE_OK ? db : NULL;
}

static bool run(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* A number that a statement returns, -1 if it does not. */
static int64_t number(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *s = NULL;
	int64_t n = -1;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
		n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return n;
}

static sqlite3 *db;
static sqlite3_stmt *insert, *discard;

static bool begin(const char *folder, const char *how)
{
	db = open_in(folder);
	return db && run(db, how) && run(db, "create table t(i integer primary key, v blob)") &&
	       sqlite3_prepare_v2(db, "insert into t values(?, ?)", -1, &insert, NULL) ==
		       SQLITE_OK &&
	       sqlite3_prepare_v2(db, "delete from t where i <= ?", -1, &discard, NULL) ==
		       SQLITE_OK;
}

static bool begin_journal(const char *folder)
{
	return begin(folder, "pragma journal_mode=delete; pragma synchronous=extra");
}

static bool begin_wal(const char *folder)
{
	return begin(folder, "pragma journal_mode=wal; pragma synchronous=full;"
			     "pragma wal_autocheckpoint=20");
}

static bool operation(uint64_t i)
{
	uint8_t data[CONTENTS_MAX];

	contents(i, data);
	sqlite3_bind_int64(insert, 1, (int64_t)i);
	sqlite3_bind_blob(insert, 2, data, (int)contents_length(i), SQLITE_STATIC);
	sqlite3_bind_int64(discard, 1, (int64_t)i - ROWS);
	if (!run(db, "begin") || sqlite3_step(insert) != SQLITE_DONE ||
	    sqlite3_step(discard) != SQLITE_DONE)
		return false;
	sqlite3_reset(insert);
	sqlite3_reset(discard);
	return run(db, "commit");
}

static bool rows_are(sqlite3 *copy, int64_t first)
{
	sqlite3_stmt *s = NULL;
	bool good = sqlite3_prepare_v2(copy, "select i, v from t order by i", -1, &s, NULL) ==
		    SQLITE_OK;

	for (; good && sqlite3_step(s) == SQLITE_ROW; first++)
		good = sqlite3_column_int64(s, 0) == first &&
		       contents_are((uint64_t)first, sqlite3_column_blob(s, 1),
				    (size_t)sqlite3_column_bytes(s, 1));
	sqlite3_finalize(s);
	return good;
}

static int64_t verify(const char *folder, const char **why)
{
	sqlite3 *copy = open_in(folder);
	int64_t last, count;

	*why = "the database cannot be opened";
	if (!copy)
		return -1;
	count = number(copy, "select count(*) from t");
	last = number(copy, "select coalesce(max(i), 0) from t");
	*why = "integrity_check";
	if (number(copy, "select count(*) from pragma_integrity_check "
			 "where integrity_check <> 'ok'") != 0)
		return -1;
	*why = "a row is not what it was";
	if (count != (last < ROWS ? last : ROWS) || !rows_are(copy, last - count + 1))
		return -1;
	sqlite3_close(copy);
	return last;
}

const struct workload sqlite_journal = {"sqlite", begin_journal, operation, verify};
const struct workload sqlite_wal = {"sqlite-wal", begin_wal, operation, verify};

SELECT json_build_object(
    'system_id', (SELECT system_identifier::text FROM pg_control_system()),
    'version_num', current_setting('server_version_num')::int,
    'in_recovery', in_recovery,
    'wal_file', CASE WHEN NOT in_recovery THEN pg_walfile_name(pg_current_wal_lsn()) END,
    'checkpoint_timeline', (SELECT timeline_id FROM pg_control_checkpoint()),
    'recovery_timeline', (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
    'flush', CASE WHEN NOT in_recovery THEN pg_current_wal_flush_lsn() END,
    'receive', CASE WHEN in_recovery THEN pg_last_wal_receive_lsn() END,
    'replay', CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() END,
    'replay_paused', CASE WHEN in_recovery THEN pg_is_wal_replay_paused() ELSE false END,
    'receiver', (
        SELECT json_build_object(
            'status', status,
            'timeline', received_tli,
            'flushed', flushed_lsn,
            'slot', slot_name,
            'last_message_ms', (extract(epoch FROM last_msg_receipt_time) * 1000)::bigint)
        FROM pg_stat_wal_receiver LIMIT 1),
    'standbys', (
        SELECT json_agg(json_build_object(
            'application_name', application_name,
            'state', state,
            'sent', sent_lsn,
            'write', write_lsn,
            'flush', flush_lsn,
            'replay', replay_lsn,
            'sync_state', sync_state))
        FROM pg_stat_replication),
    'slots', (
        SELECT json_agg(json_build_object(
            'name', slot_name,
            'active', active,
            'logical', slot_type = 'logical',
            'restart', restart_lsn,
            'wal_status', wal_status))
        FROM pg_replication_slots),
    'max_slot_wal_keep_mb', (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
    'archive_enabled', current_setting('archive_mode') <> 'off',
    'archiver', (
        SELECT json_build_object(
            'failed_count', failed_count,
            'last_failed_ms', (extract(epoch FROM last_failed_time) * 1000)::bigint,
            'last_archived_ms', (extract(epoch FROM last_archived_time) * 1000)::bigint,
            'last_failed_wal', last_failed_wal)
        FROM pg_stat_archiver),
    'started_ms', (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint)
FROM (SELECT pg_is_in_recovery() AS in_recovery) AS role

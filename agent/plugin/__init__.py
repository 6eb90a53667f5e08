"""`kubectl node-hardening`: shows what the agents report, and changes only what the user confirms.

    main, complete, session, mutations   the command line and what all commands share
    commands/    a module per command
    cluster/     reads the API into rows of sanitized values
    diagnosis/   what the rows mean: verdict, obstacles, forecast
    views/       tables and documents
    page/        the HTML report

The entry point is agent.plugin.main. Nothing of it is read on a node: all comes from Node objects, Leases, ConfigMaps
and Pods.
"""

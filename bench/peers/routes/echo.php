<?php
/** The backend of a route: answers each text with itself, and takes everything else as it comes. */
$event = json_decode(file_get_contents('php://input'), true);
header('Content-Type: application/json');
echo $event['event'] === 'text' ? json_encode(['send' => $event['data']]) : '{}';
